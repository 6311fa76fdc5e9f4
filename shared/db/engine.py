"""Engines and sessions of PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import psycopg2.extensions
from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from shared.db.connector import Connector, ReadOnlyServerError
from shared.db.pooler import TransactionLimits
from shared.settings import Settings, database_url

Sessions = sessionmaker[Session]
#: What executes a statement: a session, or a connection, which takes 55 µs less for a single statement.
Executor = Connection | Session

# A request must fail within 3 s when Postgres is unavailable or stalled (see also `api/server/gevent_psycopg2.py`).
CONNECT_TIMEOUT_SECONDS = 2
POOL_TIMEOUT_SECONDS = 2.4
STATEMENT_TIMEOUT_MS = 10_000
#: A process that stands still within a transaction must not hold its locks for ever.
IDLE_IN_TRANSACTION_TIMEOUT_MS = 10_000
#: An execution option: integers and bytea of a binary cursor are returned as raw bytes.
BINARY_RESULTS = "binary_results"
#: The server is a standby, or was made read-only.
READ_ONLY = errorcodes.READ_ONLY_SQL_TRANSACTION
IN_FAILED_TRANSACTION = errorcodes.IN_FAILED_SQL_TRANSACTION
#: Transient errors that psycopg2 takes for internal ones.
_TRANSIENT_STATES = (READ_ONLY, IN_FAILED_TRANSACTION, errorcodes.IDLE_IN_TRANSACTION_SESSION_TIMEOUT, "25P04")
_LIMIT_CLASS = errorcodes.CLASS_PROGRAM_LIMIT_EXCEEDED
_BYTES_TYPES = {17: psycopg2.extensions.BYTES, 20: psycopg2.extensions.BYTES}  # by OID: bytea, int8


def make_engine(
    settings: Settings,
    *,
    application_name: str,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    autocommit: bool = False,
    pool_timeout: float = POOL_TIMEOUT_SECONDS,
) -> Engine:
    """Make an engine with a bounded pool, whose connections are in UTC and checked before use.

    The server cancels statements that take longer than the timeout, in milliseconds. A thread waits for a connection of
    the pool for at most `pool_timeout` seconds. With `autocommit`, each statement is its own transaction, which saves a
    single query two round trips.
    """
    limits = {
        "statement_timeout": statement_timeout_ms,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_TIMEOUT_MS,
    }
    parsed = database_url.parse(settings.database_url.get_secret_value())
    engine = create_engine(
        parsed.url,
        pool_size=settings.database_pool_size,
        max_overflow=0,
        pool_timeout=pool_timeout,
        isolation_level="AUTOCOMMIT" if autocommit else None,
        use_native_hstore=False,  # no query for a type that nothing here has
        hide_parameters=True,  # errors are logged, and parameters hold users' texts
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_SECONDS,
            "application_name": application_name,
            "options": " ".join(f"-c {name}={value}" for name, value in {"timezone": "UTC", **limits}.items()),
            "keepalives_idle": 30,
            "tcp_user_timeout": 30_000,
            # A server that is read-only, because another has become the primary, is refused when connecting.
            "target_session_attrs": parsed.url.query.get("target_session_attrs", "read-write"),
        },
    )
    event.listen(engine, "do_connect", Connector(parsed.hosts))
    event.listen(engine, "handle_error", _drop_unusable)
    event.listen(engine, "checkout", _refuse_closed)
    TransactionLimits(limits).listen(engine)
    event.listen(engine, "before_cursor_execute", _return_bytes)
    return engine


def _refuse_closed(connection: Any, *_: object) -> None:
    """Make the pool replace a connection that the server has closed, without the round trip of a ping.

    `poll` reads what has arrived, without waiting. A server that shuts down sends a message before it closes the
    connection, so that only the second call sees the close.
    """
    try:
        connection.poll()
        connection.poll()
    except psycopg2.Error as error:
        raise DisconnectionError from error


@contextmanager
def long_snapshot(sessions: Sessions) -> Iterator[Connection]:
    """A transaction with one snapshot for all of its statements, which have no time limit."""
    with sessions.begin() as session:
        connection = session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        yield connection


def _return_bytes(_: Any, cursor: Any, __: str, ___: Any, context: Any, ____: bool) -> None:
    if context is not None and context.execution_options.get(BINARY_RESULTS):
        cursor.string_types = _BYTES_TYPES


def _drop_unusable(context: ExceptionContext) -> None:
    """Drop a connection to a server that has become read-only, and with it all that are as old.

    They would stay read-only for ever: a failover may leave them on the server that was the primary. Also drop one in a
    failed transaction that has just started: a pooler may lend such a connection.
    """
    if sqlstate(context.original_exception) in (READ_ONLY, IN_FAILED_TRANSACTION):
        context.is_disconnect = True


def is_unavailable(error: BaseException) -> bool:
    """Whether the error means that the server is unreachable, too slow, read-only, or has dropped the connection.

    The same statement may then succeed later. psycopg2 raises OperationalError for the SQLSTATE classes 08
    (connection), 40 (deadlock), 53 (disk, memory or connections used up), 55 (lock), 57 (shutdown, time-out) and 58
    (I/O); but also for 54 (a row or a statement is too large), and not for those of class 25.
    """
    if isinstance(error, InterfaceError | PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = sqlstate(error.orig) or ""
    if error.connection_invalidated or state in _TRANSIENT_STATES:
        return True
    return isinstance(error, OperationalError) and not state.startswith(_LIMIT_CLASS)


def refusal(error: SQLAlchemyError) -> str | None:
    """Why the server, which works otherwise, refuses to write. None if the error says something else."""
    original = getattr(error, "orig", None)
    if isinstance(original, ReadOnlyServerError) or sqlstate(original) == READ_ONLY:
        return "PostgreSQL is read-only"
    return "PostgreSQL is out of disk space" if sqlstate(original) == errorcodes.DISK_FULL else None


def cause(error: BaseException) -> str:
    """Why the database failed, for the log: the error's name, with libpq's sentence if it could not connect."""
    original = getattr(error, "orig", None) or error
    name = type(original).__name__
    if not isinstance(original, psycopg2.OperationalError) or original.pgcode is not None:
        return name
    lines = str(original).split("\n")
    return f"{name}: {lines[0]}" if lines[0] else name


def sqlstate(error: BaseException | None) -> str | None:
    """The SQLSTATE of an error of psycopg2, if the server has sent one."""
    return getattr(error, "pgcode", None)


def make_sessions(engine: Engine) -> Sessions:
    """Make a session factory. Objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)
