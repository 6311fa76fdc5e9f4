"""Which URLs and addresses a webhook may have: a user must not reach the service's own network through it (SSRF).

The form of a URL is checked when it is stored. The addresses of its name are checked at each connection, because a name
may lead elsewhere by then (`worker/webhooks/network.py`).
"""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

MAX_URL_CHARACTERS = 2_048

# Blocks that `is_global`, or that of some versions of Python, takes for public. IANA's registries of special addresses:
# https://www.iana.org/assignments/iana-ipv4-special-registry and …/iana-ipv6-special-registry.
_SPECIAL = tuple(
    ip_network(block)
    for block in (
        "168.63.129.16/32",  # Azure's virtual machines reach the platform's services at it
        "192.0.0.0/24",  # protocol assignments, where clouds have some of their services
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # relays of 6to4
        "192.175.48.0/24",  # AS112
        "2001::/23",  # protocol assignments, with Teredo
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
    )
)
_AUTHORITY = re.compile(r"[^/?#]*//([^/?#]*)")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
#: A last label that makes a host an address, or invalid (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_NUMBER = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)\.?$")
_IPV6_UNICAST = ip_network("2000::/3")
#: IPv4 addresses behind a network's NAT64, which DNS64 returns instead of them (RFC 6052).
_NAT64 = ip_network("64:ff9b::/96")


def check_url(url: str, *, allow_private: bool) -> None:
    """Check the URL of a webhook. A name is not resolved.

    Args:
        allow_private: Whether plain HTTP and private addresses are allowed.

    Raises:
        ValueError: with a sentence for its user.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise ValueError(f"A webhook's URL has at most {MAX_URL_CHARACTERS:,} characters.")
    parsed = _parse(url)
    if parsed.scheme not in (("https", "http") if allow_private else ("https",)):
        raise ValueError("A webhook's URL begins with https://." if not allow_private else "Use an http or https URL.")
    if "@" in _AUTHORITY.match(url)[1]:  # type: ignore[index]  # a URL with a host has an authority
        raise ValueError("A webhook's URL has no user name or password: check the signature instead.")
    if "#" in url:
        raise ValueError("A webhook's URL has no fragment (#…).")
    if not allow_private:
        _check_host(parsed.raw_host.decode())


def _parse(url: str) -> "httpx.URL":
    import httpx  # slow to load, and rarely needed

    # Parsers disagree about backslashes and blanks.
    if "\\" in url or any(character <= " " or character == "\x7f" for character in url):
        raise ValueError("A webhook's URL has no spaces, backslashes or control characters.")
    try:
        parsed = httpx.URL(url)  # encodes names by IDNA 2008, which has no digits but 0 to 9
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError("This is not a valid URL.") from error
    host = parsed.raw_host.decode()
    if not host.strip("."):
        raise ValueError("A webhook's URL has a host, as in https://example.com/hook.")
    if parse_address(host) is None and (not _NAME.fullmatch(host) or _NUMBER.search(host)):
        raise ValueError(f"{host} is neither the name of a host nor an address.")
    if parsed.port is not None and not 1 <= parsed.port <= 65_535:
        raise ValueError("A port is a number from 1 to 65535.")
    return parsed


def _check_host(host: str) -> None:
    address = parse_address(host)
    if address is not None:
        require_public(address)
    elif host.rstrip(".").rpartition(".")[2] == "localhost":
        raise ValueError("Webhooks are sent to public addresses only: localhost is not one.")


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is, in any notation that resolvers take: `127.1`, `0x7f000001`, `017700000001`, `0`.

    None for a name.
    """
    host = host.strip("[]").removesuffix(".")
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError:
        return None


def require_public(address: IPv4Address | IPv6Address) -> None:
    """Raise ValueError, with a sentence, unless the address is a public one."""
    if not is_public(address):
        raise ValueError(f"Webhooks are sent to public addresses only: {address} is not one.")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is a host's in the public internet. One that contains an IPv4 address is judged by that."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _IPV6_UNICAST or address.scope_id is not None:
            return False
    is_special = any(address in block for block in _SPECIAL)
    return address.is_global and not (is_special or address.is_multicast or address.is_reserved)
