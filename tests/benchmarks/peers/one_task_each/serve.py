"""Starts the peer."""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from datetime import timedelta

import psycopg2
from flask import Flask
from flask_jwt_extended import JWTManager, create_access_token

from tests.benchmarks.cpu import server_pid
from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.peers import serving
from tests.benchmarks.peers.one_task_each.database import TABLES
from tests.support import processes
from tests.support.servers import Servers

_PEER = "tests.benchmarks.peers.one_task_each"
_KEYSPACE = 1
_WORKER = ["--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]


@contextlib.contextmanager
def serve(servers: Servers, accounts: int) -> Iterator[Contender]:
    """The peer with so many users."""
    with contextlib.ExitStack() as stack:
        database_url = stack.enter_context(serving.empty_database(servers))
        redis_url = stack.enter_context(serving.empty_keyspace(servers, _KEYSPACE))
        secret = secrets.token_hex()
        users = _make_users(database_url, serving.usernames(accounts), secret)
        environment = {"PEER_DATABASE_URL": database_url, "PEER_REDIS_URL": redis_url, "PEER_SECRET": secret}

        def run(module: str, *arguments: str) -> int:
            return stack.enter_context(serving.running(module, *arguments, environment=environment))

        port = processes.free_port()
        api = ["-c", f"python:{_PEER}.gunicorn_conf", "-b", f"127.0.0.1:{port}", f"{_PEER}.api:app"]
        parts = {
            "api": [run("gunicorn", *api)],
            "worker": [run("celery", "-A", f"{_PEER}.worker", "worker", *_WORKER)],
            "valkey": [serving.valkey_pid(servers)],
            "postgres": [server_pid(servers)],
        }
        url = f"http://127.0.0.1:{port}"
        serving.wait_until_it_works(url, users.pop())
        yield Contender("one_task_each", url, users, parts)


def _make_users(database_url: str, names: Sequence[str], secret: str) -> list[Account]:
    """Makes the tables and these users. Returns them with their tokens."""
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
