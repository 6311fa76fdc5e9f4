"""Starts the peer."""

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence

import jwt
from sqlalchemy import create_engine, insert
from sqlalchemy.engine import make_url

from tests.benchmarks.cpu import server_pid
from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.peers import serving
from tests.support import processes
from tests.support.servers import Servers

_PEER = "tests.benchmarks.peers.taskiq_fastapi"
_KEYSPACE = 2
_API = ["--loop", "uvloop", "--http", "httptools", "--ws", "websockets-sansio", "--ws-per-message-deflate", "false"]
_API += ["--no-access-log", "--log-level", "warning"]
_WORKER = ["--workers", "2", "--max-async-tasks", "20", "--max-prefetch", "20", "--ack-type", "when_executed"]
_WORKER += ["--no-parse", "--log-level", "WARNING"]


@contextlib.contextmanager
def serve(servers: Servers, accounts: int) -> Iterator[Contender]:
    """The peer with so many users. Raises `serving.NotInstalledError`."""
    serving.require("fastapi", "uvicorn", "uvloop", "httptools", "orjson", "asyncpg", "taskiq", "taskiq_redis")
    with contextlib.ExitStack() as stack:
        database_url = stack.enter_context(serving.empty_database(servers))
        redis_url = stack.enter_context(serving.empty_keyspace(servers, _KEYSPACE))
        secret = secrets.token_hex()
        users = _make_users(database_url, serving.usernames(accounts), secret)
        environment = {"PEER_DATABASE_URL": database_url, "PEER_REDIS_URL": redis_url, "PEER_SECRET": secret}

        def run(module: str, *arguments: str) -> int:
            return stack.enter_context(serving.running(module, *arguments, environment=environment))

        port = processes.free_port()
        url = f"http://127.0.0.1:{port}"
        parts = {
            "api": [run("uvicorn", "--host", "127.0.0.1", "--port", str(port), *_API, f"{_PEER}.api:app")],
            "worker": [run("taskiq", "worker", *_WORKER, f"{_PEER}.tasks:broker")],
            "valkey": [serving.valkey_pid(servers)],
            "postgres": [server_pid(servers)],
        }
        serving.wait_until_it_works(url, users.pop())
        yield Contender("taskiq_fastapi", url, users, parts)


def _make_users(database_url: str, names: Sequence[str], secret: str) -> list[Account]:
    """Makes the tables and these users. Returns them with their tokens."""
    from tests.benchmarks.peers.taskiq_fastapi.database import metadata, users

    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    with engine.begin() as connection:
        metadata.create_all(connection)
        added = insert(users).returning(users.c.id, sort_by_parameter_order=True)
        ids = connection.scalars(added, [{"username": name} for name in names]).all()
    engine.dispose()
    expires_at = int(time.time()) + serving.TOKEN_HOURS * 3_600
    return [
        Account(name, jwt.encode({"sub": str(user_id), "username": name, "exp": expires_at}, secret))
        for user_id, name in zip(ids, names, strict=True)
    ]
