"""The connection to PostgreSQL."""

from typing import Any

import psycopg2
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session, sessionmaker

from shared.settings import Settings

Sessions = sessionmaker[Session]

# A request must learn within 3 s that Postgres is away or does not answer (see also `api/postgres_wait.py`).
CONNECT_TIMEOUT_SECONDS = 2
POOL_TIMEOUT_SECONDS = 2.4
STATEMENT_TIMEOUT_MS = 10_000


def make_engine(
    settings: Settings, *, application_name: str, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
) -> Engine:
    """An engine with a bounded pool whose connections are checked before use, in UTC.

    The server cancels statements that take longer than the timeout, in milliseconds.
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


def make_sessions(engine: Engine) -> Sessions:
    """Sessions whose objects stay readable after the commit."""
    return sessionmaker(engine, expire_on_commit=False)
