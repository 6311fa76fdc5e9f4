"""PUBLIC_URL and ALLOWED_HOSTS: where clients reach the API, through all proxies."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

#: The first parts of the API's paths. A path prefix must differ from them: otherwise `/prompts/` could be the page
#: below the prefix `/prompts`, or the list of prompts after a proxy has removed the prefix.
FIRST_SEGMENTS = frozenset(
    (
        *("account", "admin", "auth", "docs", "livez", "login", "metrics", "openapi.json", "prompts", "readyz"),
        *("p", "static", "usage", "v1", "webhooks", "ws"),
    )
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_PREFIX = re.compile(r"(/[\w.~-]*)*", re.ASCII)
_HOST_PATTERN = re.compile(r"\*|\.?[\w-]+(\.[\w-]+)*|\[[0-9a-f:.]+\]", re.ASCII | re.IGNORECASE)
_NOT_A_URL = "this is not the URL of a website; write it like https://prompts.example.com or https://example.com/prefix"


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """A parsed URL.

    Attributes:
        host: The host's name in lower case, without a port; an IPv6 address has brackets.
        origin: What browsers send as `Origin`: the scheme, the host, and the port unless it is the scheme's default.
        prefix: The path below which everything is, such as `/promptwire`; empty if there is none.
    """

    scheme: str
    host: str
    origin: str
    prefix: str

    def __str__(self) -> str:
        return self.origin + self.prefix


def parse_public_url(text: str) -> PublicUrl:
    """Parse a URL.

    Raises:
        ValueError: it is not a URL that the API can have.
    """
    try:
        parts = urlsplit(text)
        name, port = (parts.hostname or "").encode("idna").decode(), parts.port
    except ValueError as error:  # the port is not a number, or the name is not one
        raise ValueError(_NOT_A_URL) from error
    if parts.scheme not in _DEFAULT_PORTS or not name or not _PREFIX.fullmatch(parts.path):
        raise ValueError(_NOT_A_URL)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("the URL must have no user, query or fragment")
    segments = [segment for segment in parts.path.split("/") if segment]
    if {".", ".."} & set(segments):
        raise ValueError(_NOT_A_URL)
    if segments and segments[0] in FIRST_SEGMENTS:
        raise ValueError(f"the API has paths below /{segments[0]} itself; choose another prefix, such as /promptwire")
    prefix = "".join(f"/{segment}" for segment in segments)
    host = f"[{name}]" if ":" in name else name
    suffix = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return PublicUrl(parts.scheme, host, f"{parts.scheme}://{host}{suffix}", prefix)


def is_host_pattern(text: str) -> bool:
    """Whether ALLOWED_HOSTS may have it: a host's name, `.example.com` for that and all names below it, or `*`."""
    return _HOST_PATTERN.fullmatch(text) is not None
