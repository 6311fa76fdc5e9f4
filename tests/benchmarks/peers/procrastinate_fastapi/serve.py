"""Starts the peer."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from tests.benchmarks.end_to_end.contender import Account, Contender
from tests.benchmarks.peers import serving
from tests.support.servers import Servers

_PEER = "tests.benchmarks.peers.procrastinate_fastapi"
_KEYSPACE = 3
_WORKER = ["worker", "--queues", "prompts", "--concurrency", "20", "--delete-jobs", "successful"]


def serve(servers: Servers, accounts: int) -> AbstractContextManager[Contender]:
    """Run the peer with `accounts` users. Raise `serving.NotInstalledError` if a library is missing."""
    serving.require("fastapi", "uvicorn", "uvloop", "httptools", "orjson", "psycopg", "psycopg_pool", "procrastinate")
    return serving.with_queue(
        servers,
        "procrastinate_fastapi",
        _KEYSPACE,
        accounts,
        make_users=_make_users,
        api=lambda port: serving.uvicorn(port, f"{_PEER}.api:app"),
        worker=("procrastinate", "--app", f"{_PEER}.jobs.app", *_WORKER),
        worker_processes=2,
    )


def _make_users(database_url: str, names: Sequence[str], secret: str) -> list[Account]:
    """Create all tables and these users. Return the users with their tokens."""
    from procrastinate.schema import SchemaManager

    from tests.benchmarks.peers.procrastinate_fastapi.database import TABLES

    tables = f"{SchemaManager.get_schema()}\n{TABLES}"
    return serving.with_tokens(serving.insert_users(database_url, tables, names), secret)
