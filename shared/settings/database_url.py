"""DATABASE_URL: a PostgreSQL URL as libpq reads it, also with several hosts.

https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS
"""

import re
from dataclasses import dataclass
from urllib.parse import quote

from psycopg2 import ProgrammingError
from psycopg2.extensions import make_dsn
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

SCHEMES = ("postgres", "postgresql", "postgresql+psycopg2")
_DRIVER = "postgresql+psycopg2"
_DEFAULT_PORT = "5432"
_NOT_A_URL = (
    "this is not a PostgreSQL URL; write it like postgresql://user:password@host:5432/name, several hosts with commas "
    "between them, and in a password %2F for / and %40 for @"
)
# SQLAlchemy reads at most one port before the path.
_URL = re.compile(r"(?P<scheme>[\w+]+)://(?P<login>[^/?]*@)?(?P<hosts>[^/?@]*)(?P<rest>.*)", re.DOTALL)
_HOST = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(?::(?P<port>\d*))?")


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A parsed URL. `hosts` are its hosts with their ports if there are several, else empty: then `url` has the one."""

    url: URL
    hosts: tuple[tuple[str, str], ...] = ()

    @property
    def host_names(self) -> list[str | None]:
        """All hosts; None is the local Unix socket."""
        return [host for host, _ in self.hosts] or [self.url.host]


def parse(text: str) -> DatabaseUrl:
    """Parse a URL.

    Raises:
        ValueError: it is not a PostgreSQL URL.
    """
    found = _URL.fullmatch(text)
    if found is None or found["scheme"] not in SCHEMES:
        raise ValueError(_NOT_A_URL)
    hosts = tuple(map(_parse_host, found["hosts"].split(","))) if "," in found["hosts"] else ()
    shown = "" if hosts else found["hosts"]
    try:
        url = make_url(f"{_DRIVER}://{found['login'] or ''}{shown}{found['rest']}")
    except (ArgumentError, ValueError) as error:
        raise ValueError(_NOT_A_URL) from error
    _check_port(url.port or _DEFAULT_PORT)
    if "@" in (url.host or ""):  # it is in the password
        raise ValueError(_NOT_A_URL)
    try:
        make_dsn(**dict.fromkeys(url.query, ""))  # what follows the question mark are options of libpq
    except ProgrammingError as error:
        raise ValueError(str(error).strip()) from error
    return DatabaseUrl(url, hosts)


def with_database(text: str, name: str) -> str:
    """The URL of another database on the same servers."""
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(_NOT_A_URL)
    _, mark, options = found["rest"].partition("?")
    return f"{found['scheme']}://{found['login'] or ''}{found['hosts']}/{quote(name, safe='')}{mark}{options}"


def _parse_host(text: str) -> tuple[str, str]:
    found = _HOST.fullmatch(text)
    if found is None or not found["host"]:
        raise ValueError(_NOT_A_URL)
    port = found["port"] or _DEFAULT_PORT
    _check_port(port)
    return found["host"].strip("[]"), port


def _check_port(port: str | int) -> None:
    if not 1 <= int(port) <= 65_535:
        raise ValueError(_NOT_A_URL)
