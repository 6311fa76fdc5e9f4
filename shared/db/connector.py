"""Connecting to the one of several servers that takes writes."""

import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, ClassVar

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

    #: Looks up the addresses of a host where libpq must not: it would stop all other greenlets.
    look_up: ClassVar[Callable[[str], list[str]] | None] = None

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
            return self._connect(*arguments, **_with_addresses(parameters | _as_parameters(hosts), Connector.look_up))
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


def _with_addresses(parameters: dict[str, Any], look_up: Callable[[str], list[str]] | None) -> dict[str, Any]:
    """Add the addresses of the hosts (libpq's `hostaddr`). The names stay: TLS certificates are checked for them."""
    names = str(parameters.get("host") or "").split(",")
    ports = str(parameters.get("port") or "").split(",")
    if look_up is None or "hostaddr" in parameters or not any(map(_is_name, names)):
        return parameters
    servers = list(_servers(names, ports * len(names) if len(ports) == 1 else ports, look_up))
    return parameters | dict(zip(("host", "hostaddr", "port"), map(",".join, zip(*servers, strict=True)), strict=True))


def _servers(names: list[str], ports: list[str], look_up: Callable[[str], list[str]]) -> Iterator[tuple[str, str, str]]:
    """Yield the host, an address and the port of each server. Raises OperationalError if no name has an address."""
    errors, found = [], False
    for name, port in zip(names, ports, strict=True):
        try:
            addresses = look_up(name) if _is_name(name) else [""]
        except psycopg2.OperationalError as error:
            errors.append(error)
            continue
        found = True
        yield from ((name, address, port) for address in addresses)
    if not found:
        raise errors[0]


def _is_name(host: str) -> bool:
    """Whether it is neither an address nor a folder with a Unix socket."""
    try:
        ip_address(host)
    except ValueError:
        return bool(host) and not host.startswith(("/", "@"))
    return False
