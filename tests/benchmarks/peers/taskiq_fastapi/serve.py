"""Starts the peer."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.peers import serving
from tests.support.servers import Servers

_PEER = "tests.benchmarks.peers.taskiq_fastapi"
_KEYSPACE = 2
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
        api=lambda port: serving.uvicorn(port, f"{_PEER}.api:app"),
        worker=("taskiq", "worker", *_WORKER, f"{_PEER}.tasks:broker"),
    )


def _make_users(database_url: str, names: Sequence[str], secret: str) -> list[Account]:
    """Create the tables and these users. Return the users with their tokens."""
    from tests.benchmarks.peers.taskiq_fastapi.database import metadata

    engine = create_engine(make_url(database_url).set(drivername="postgresql+psycopg2"))
    metadata.create_all(engine)
    engine.dispose()
    return serving.with_tokens(serving.insert_users(database_url, "", names), secret)
