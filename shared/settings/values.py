"""Checks of single settings. Each returns the value, or raises ValueError with a text for people.

No text repeats a value that may hold a secret, as URLs do.
"""

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

from limits import parse_many
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shared.settings.public_url import is_host_pattern

_MAX_WINDOW_SECONDS = 366 * 86_400
_MAX_AMOUNT = 1_000_000_000
#: What stands in the examples for a password.
_PLACEHOLDER = "PASSWORD"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+", re.IGNORECASE)


def address(value: str) -> str:
    """An IP address, without the brackets that an IPv6 address may have.

    A host name is refused: which of its addresses a server listens on would depend on the program and the resolver.
    """
    bare = value.removeprefix("[").removesuffix("]")
    try:
        ip_address(bare)
    except ValueError:
        raise ValueError(
            f"{value!r} is not an IP address; write 127.0.0.1 or ::1 for this machine only, 0.0.0.0 or :: for all"
        ) from None
    return bare


def bracketed(bare: str) -> str:
    """An IP address as it stands before a port and in a URL: IPv6 in brackets."""
    return f"[{bare}]" if ":" in bare else bare


def origins(value: object) -> object:
    """Origins of web pages, separated by commas, without a final slash; or `*`."""
    if not isinstance(value, str):
        return value
    listed = tuple(part.rstrip("/") for part in split(value))
    if not all(origin in ("*", "null") or _ORIGIN.fullmatch(origin) for origin in listed):
        raise ValueError("not all of these are origins; write them like https://app.example.com, without a path")
    return listed


def hosts(value: object) -> object:
    """Names of hosts, separated by commas, in lower case; `.example.com` is that and all below it, `*` any."""
    if not isinstance(value, str):
        return value
    listed = tuple(host.lower() for host in split(value))
    wrong = next((host for host in listed if not is_host_pattern(host)), None)
    if wrong is not None:
        raise ValueError(
            f"{wrong!r} is not the name of a host; write names like prompts.example.com, without a scheme or a port, "
            ".example.com for all below it, or * for any"
        )
    return listed


def split(value: str) -> list[str]:
    """The parts of a list with commas between them."""
    return [part.strip() for part in value.split(",") if part.strip()]


def http_url(value: str) -> str:
    """An http or https URL, or an empty text."""
    wrong = ValueError("this is not a URL; write it like https://host.example or http://127.0.0.1:8000")
    try:
        parts = urlsplit(value.strip())
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise wrong from None
    if value and not (parts.scheme in ("http", "https") and has_host and len(value.split()) == 1):
        raise wrong
    return value


def redis_url(value: str) -> str:
    """A URL of Redis, with its password quoted: redis-py takes a slash in it for the end of the host, and names a part.

    SQLAlchemy parses it: gunicorn reads settings before gevent has patched what redis-py imports.
    """
    try:
        parsed = make_url(value)
    except (ArgumentError, ValueError):
        parsed = None
    if (
        parsed is None
        or parsed.drivername not in ("redis", "rediss")
        or not 1 <= (parsed.port or 6379) <= 65_535
        or not (parsed.database or "0").isdecimal()  # redis-py would ignore it, kombu would not
        or "@" in (parsed.host or "")  # it is in the password
    ):
        raise ValueError("this is not a Redis URL; write it like redis://:password@host:6379/0")
    refuse_placeholder(str(parsed.password))
    return parsed.render_as_string(hide_password=False)


def refuse_placeholder(password: str) -> None:
    """Refuse a password that was copied from an example."""
    if password == _PLACEHOLDER:
        raise ValueError(f"its password is still {_PLACEHOLDER}, as in the example; write the real one")


def rate_limit(value: str) -> str:
    """Rate limits as `limits` reads them, each of at least one and within a year."""
    try:
        items = parse_many(value)
    except ValueError:
        items = []
    if not items or any(
        not 1 <= item.amount <= _MAX_AMOUNT or not 1 <= item.get_expiry() <= _MAX_WINDOW_SECONDS for item in items
    ):
        raise ValueError(f"{value!r} is not a valid rate limit; write it like 1/second;10/minute")
    return value
