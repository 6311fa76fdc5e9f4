"""Starts the peer."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager

import jwt
from sqlalchemy import create_engine, insert
from sqlalchemy.engine import make_url

from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.peers import serving
from tests.support.servers import Servers

_PEER = "tests.benchmarks.peers.taskiq_fastapi"
_KEYSPACE = 2
_API = ["--loop", "uvloop", "--http", "httptools", "--ws", "websockets-sansio", "--ws-per-message-deflate", "false"]
_API += ["--no-access-log", "--log-level", "warning"]
_WORKER = ["--workers", "2", "--max-async-tasks", "20", "--max-prefetch", "20", "--ack-type", "when_executed"]
_WORKER += ["--no-parse", "--log-level", "WARNING"]


def serve(servers: Servers, accounts: int) -> AbstractContextManager[Contender]:
    """Run the peer with `accounts` users. Raise `serving.NotInstalledError` if a library is missing."""
    serving.require("fastapi", "uvicorn", "uvloop", "httptools", "orjson", "asyncpg", "taskiq", "taskiq_redis")
    return serving.with_queue(
        servers,
        "taskiq_fastapi",
        _KEYSPACE,
        accounts,
        make_users=_make_users,
        api=lambda port: ("uvicorn", "--host", "127.0.0.1", "--port", str(port), *_API, f"{_PEER}.api:app"),
        worker=("taskiq", "worker", *_WORKER, f"{_PEER}.tasks:broker"),
    )


def _make_users(database_url: str, names: Sequence[str], secret: str) -> list[Account]:
    """Create the tables and these users. Return the users with their tokens."""
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
