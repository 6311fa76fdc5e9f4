"""How psycopg2 waits for PostgreSQL in an API process: other greenlets run meanwhile, and the wait is bounded."""

import time

import gevent
import psycopg2
from gevent import socket
from psycogreen.gevent import gevent_wait_callback

from shared.db.connector import Connector

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
    """Make psycopg2 wait this way, in this process, also for the addresses of the servers."""
    psycopg2.extensions.set_wait_callback(_wait)
    Connector.look_up = look_up


def look_up(host: str) -> list[str]:
    """The addresses of a host. A name server that does not answer counts as a server that does not.

    Raises:
        psycopg2.OperationalError: the name is unknown, or there was no answer in time.
    """
    _refuse_while_stalled()
    try:
        with gevent.Timeout(WAIT_TIMEOUT_SECONDS, TimeoutError):
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise _stalled(f"the name {host} was not found") from None
    except OSError as error:
        raise psycopg2.OperationalError(f"the name {host} was not found: {error.strerror}") from error
    return [str(address[0]) for *_, address in found]


def _wait(connection: "psycopg2.extensions.connection") -> None:
    # psycopg2 closes a connection whose wait failed.
    _refuse_while_stalled()
    try:
        gevent_wait_callback(connection, timeout=WAIT_TIMEOUT_SECONDS)
    except TimeoutError as error:
        raise _stalled("PostgreSQL did not answer") from error


def _refuse_while_stalled() -> None:
    if time.monotonic() < _Server.stalled_until:
        raise psycopg2.OperationalError("PostgreSQL did not answer recently")


def _stalled(what: str) -> psycopg2.OperationalError:
    _Server.stalled_until = time.monotonic() + STALL_PAUSE_SECONDS
    return psycopg2.OperationalError(f"{what} within {WAIT_TIMEOUT_SECONDS} s")
