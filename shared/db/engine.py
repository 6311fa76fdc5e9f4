"""The connection to PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from shared.settings import Settings

Sessions = sessionmaker[Session]
#: What a lone statement goes through: a session, or a connection, which takes 55 µs less.
Executor = Connection | Session

# A request must learn within 3 s that Postgres is away or does not answer (see also `api/server/gevent_psycopg2.py`).
CONNECT_TIMEOUT_SECONDS = 2
POOL_TIMEOUT_SECONDS = 2.4
STATEMENT_TIMEOUT_MS = 10_000
#: An execution option: integers and bytea of a binary cursor are left as they come, as bytes.
BINARY_RESULTS = "binary_results"
_BYTES_TYPES = {17: psycopg2.extensions.BYTES, 20: psycopg2.extensions.BYTES}  # by OID: bytea, int8


def make_engine(
    settings: Settings,
    *,
    application_name: str,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    autocommit: bool = False,
) -> Engine:
    """An engine with a bounded pool whose connections are checked before use, in UTC.

    The server cancels statements that take longer than the timeout, in milliseconds. With `autocommit`, each is a
    transaction of its own, which saves a lone query two round trips.
    """
    url = settings.database_url.get_secret_value()
    for scheme in ("postgres://", "postgresql://"):
        if url.startswith(scheme):
            url = "postgresql+psycopg2://" + url.removeprefix(scheme)
    engine = create_engine(
        url,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        isolation_level="AUTOCOMMIT" if autocommit else None,
        hide_parameters=True,  # they hold what people write, and errors are logged
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": application_name,
            "options": f"-c timezone=UTC -c statement_timeout={statement_timeout_ms}",
            "keepalives_idle": 30,
            "tcp_user_timeout": 30_000,
        },
    )
    event.listen(engine, "checkout", _refuse_closed)
    event.listen(engine, "before_cursor_execute", _leave_binary)
    return engine


def _refuse_closed(connection: Any, *_: object) -> None:
    """Has the pool replace a connection that the server has closed, without the round trip of a ping.

    `poll` reads what has come, without waiting. A server that shuts down says so before it closes, which takes the
    second call to see.
    """
    try:
        connection.poll()
        connection.poll()
    except psycopg2.Error as error:
        raise DisconnectionError from error


@contextmanager
def long_snapshot(sessions: Sessions) -> Iterator[Connection]:
    """A transaction that sees one moment all along, and whose statements may take as long as they need."""
    with sessions.begin() as session:
        connection = session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        yield connection


def _leave_binary(_: Any, cursor: Any, __: str, ___: Any, context: Any, ____: bool) -> None:
    if context is not None and context.execution_options.get(BINARY_RESULTS):
        cursor.string_types = _BYTES_TYPES


def is_unavailable(error: Exception) -> bool:
    """Whether it says that the server cannot be reached, does not answer in time, or has dropped the connection."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeoutError):
        return True
    return isinstance(error, DBAPIError) and error.connection_invalidated


def make_sessions(engine: Engine) -> Sessions:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)
