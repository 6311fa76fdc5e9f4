"""Starts the peer."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta

import psycopg2
from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token

from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.peers import serving
from tests.benchmarks.peers.one_task_each.database import TABLES
from tests.support.servers import Servers

_PEER = "tests.benchmarks.peers.one_task_each"
_KEYSPACE = 1
_API = ["-c", f"python:{_PEER}.gunicorn_conf"]
_WORKER = ["--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]


def serve(servers: Servers, accounts: int) -> AbstractContextManager[Contender]:
    """Run the peer with `accounts` users."""
    return serving.with_queue(
        servers,
        "one_task_each",
        _KEYSPACE,
        accounts,
        make_users=_make_users,
        api=lambda port: ("gunicorn", *_API, "-b", f"127.0.0.1:{port}", f"{_PEER}.api:app"),
        worker=("celery", "-A", f"{_PEER}.worker", "worker", *_WORKER),
    )


def _make_users(database_url: str, names: Sequence[str], secret: str) -> list[Account]:
    """Create the tables and these users. Return the users with their tokens."""
    with contextlib.closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
        cursor.execute("INSERT INTO users (username) SELECT unnest(%s) RETURNING username, id", (list(names),))
        ids = dict(cursor.fetchall())
    app = Flask(__name__)
    app.config.update(JWT_SECRET_KEY=secret, JWT_ACCESS_TOKEN_EXPIRES=timedelta(hours=serving.TOKEN_HOURS))
    JWTManager(app)
    with app.app_context():
        tokens = [create_access_token(str(ids[name]), additional_claims={"username": name}) for name in names]
    return [Account(*each) for each in zip(names, tokens, strict=True)]
