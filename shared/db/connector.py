"""Connecting to the one of several servers that takes writes."""

import time
from typing import Any

import psycopg2

#: For how long a process does not connect after all servers were read-only.
READ_ONLY_PAUSE_SECONDS = 1.0
# libpq's sentence for target_session_attrs=read-write.
_READ_ONLY = "session is read-only"
# PgBouncer's sentence, if its `ignore_startup_parameters` lacks `options`. It goes on with the parameter's name.
_REFUSED_OPTIONS = "unsupported startup parameter"


class ReadOnlyServerError(psycopg2.OperationalError):
    """All servers are read-only."""


class Connector:
    """Opens the connections of an engine: a listener of SQLAlchemy's event `do_connect`.

    libpq tries the hosts in order. In an API process, though, it never gets to the second if the first does not answer:
    with a wait callback it has no `connect_timeout` for each host, and the wait ends with an error
    (`api/server/gevent_psycopg2.py`). So the host that comes first changes after an error.

    Args:
        hosts: Hosts and ports, if there are several; else empty.
    """

    def __init__(self, hosts: tuple[tuple[str, str], ...]) -> None:
        self._hosts = hosts
        self._read_only_until = 0.0
        self._refuses_options = False

    def __call__(self, dialect: object, record: object, arguments: list[Any], parameters: dict[str, Any]) -> Any:
        # Each connection would cost the server a process, just to be closed.
        if time.monotonic() < self._read_only_until:
            raise ReadOnlyServerError(f"the server was read-only within the last {READ_ONLY_PAUSE_SECONDS:g} s")
        hosts = self._hosts
        try:
            return self._connect(*arguments, **parameters | _as_parameters(hosts))
        except psycopg2.OperationalError as error:
            if hosts is self._hosts:  # unless a concurrent connection has changed it
                self._hosts = (*hosts[1:], *hosts[:1])
            if _READ_ONLY not in str(error):
                raise
            self._read_only_until = time.monotonic() + READ_ONLY_PAUSE_SECONDS
            raise ReadOnlyServerError(str(error)) from None

    def _connect(self, *arguments: Any, **parameters: Any) -> Any:
        """Connect, to a pooler that refuses the settings of a session without them (`shared/db/pooler.py`)."""
        if self._refuses_options:
            parameters.pop("options", None)
        try:
            return psycopg2.connect(*arguments, **parameters)
        except psycopg2.OperationalError as error:
            if _REFUSED_OPTIONS not in str(error) or "options" not in parameters:
                raise
        self._refuses_options = True
        return self._connect(*arguments, **parameters)


def _as_parameters(hosts: tuple[tuple[str, str], ...]) -> dict[str, str]:
    if not hosts:
        return {}
    return {"host": ",".join(host for host, _ in hosts), "port": ",".join(port for _, port in hosts)}
