"""How an API process waits for PostgreSQL: other greenlets run meanwhile, and not for ever."""

import time

import psycopg2
from psycogreen.gevent import gevent_wait_callback

#: A client is to learn within 3 s that Postgres does not answer. It cancels slow statements itself before that, so
#: who waits so long waits for a server that is stalled or cut off.
STATEMENT_TIMEOUT_MS = 2_000
SECONDS = 2.5
#: For how long everybody then fails at once, instead of waiting in turn for a connection that will not answer.
PAUSE_SECONDS = 1.0


class _Patience:
    """What this process has seen of the server."""

    stalled_until = 0.0


def install() -> None:
    """Makes psycopg2 wait so, in this process."""
    psycopg2.extensions.set_wait_callback(_wait)


def _wait(connection: "psycopg2.extensions.connection") -> None:
    # psycopg2 closes a connection whose wait failed.
    if time.monotonic() < _Patience.stalled_until:
        raise psycopg2.OperationalError("PostgreSQL did not answer lately")
    try:
        gevent_wait_callback(connection, timeout=SECONDS)
    except TimeoutError as error:
        _Patience.stalled_until = time.monotonic() + PAUSE_SECONDS
        raise psycopg2.OperationalError(f"PostgreSQL did not answer within {SECONDS} s") from error
