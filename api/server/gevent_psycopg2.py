"""How psycopg2 waits for PostgreSQL in an API process: other greenlets run meanwhile, and the wait is bounded."""

import time

import psycopg2
from psycogreen.gevent import gevent_wait_callback

#: A client gets an answer within 3 s when PostgreSQL does not answer. PostgreSQL cancels slow statements before that,
#: so a wait of WAIT_TIMEOUT_SECONDS means that the server is stalled or cut off.
STATEMENT_TIMEOUT_MS = 2_000
WAIT_TIMEOUT_SECONDS = 2.5
#: For how long every wait then fails at once, instead of waiting in turn for a connection that will not answer.
STALL_PAUSE_SECONDS = 1.0


class _Server:
    """What this process knows of the server."""

    stalled_until = 0.0


def install() -> None:
    """Make psycopg2 wait this way, in this process."""
    psycopg2.extensions.set_wait_callback(_wait)


def _wait(connection: "psycopg2.extensions.connection") -> None:
    # psycopg2 closes a connection whose wait failed.
    if time.monotonic() < _Server.stalled_until:
        raise psycopg2.OperationalError("PostgreSQL did not answer recently")
    try:
        gevent_wait_callback(connection, timeout=WAIT_TIMEOUT_SECONDS)
    except TimeoutError as error:
        _Server.stalled_until = time.monotonic() + STALL_PAUSE_SECONDS
        raise psycopg2.OperationalError(f"PostgreSQL did not answer within {WAIT_TIMEOUT_SECONDS} s") from error
