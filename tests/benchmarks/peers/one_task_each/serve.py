"""Starts the peer."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta

from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token

from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.peers import serving
from tests.benchmarks.peers.one_task_each.database import TABLES
from tests.support.servers import Servers

_PEER = "tests.benchmarks.peers.one_task_each"
_KEYSPACE = 1
_WORKER = ["--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]


def serve(servers: Servers, accounts: int) -> AbstractContextManager[Contender]:
    """Run the peer with `accounts` users."""
    return serving.with_queue(
        servers,
        "one_task_each",
        _KEYSPACE,
        accounts,
        make_users=make_users,
        api=gunicorn(f"{_PEER}.api:app"),
        worker=("celery", "-A", f"{_PEER}.worker", "worker", *_WORKER),
    )


def gunicorn(app: str) -> Callable[[int], Sequence[str]]:
    """The command that serves an application on a port."""
    return lambda port: ("gunicorn", "-c", f"python:{_PEER}.gunicorn_conf", "-b", f"127.0.0.1:{port}", app)


def make_users(database_url: str, names: Sequence[str], secret: str) -> list[Account]:
    """Create the tables and these users. Return the users with their tokens."""
    ids = serving.insert_users(database_url, TABLES, names)
    app = Flask(__name__)
    app.config.update(JWT_SECRET_KEY=secret, JWT_ACCESS_TOKEN_EXPIRES=timedelta(hours=serving.TOKEN_HOURS))
    JWTManager(app)
    with app.app_context():
        tokens = [create_access_token(str(ids[name]), additional_claims={"username": name}) for name in names]
    return [Account(*each) for each in zip(names, tokens, strict=True)]
