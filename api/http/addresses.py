"""Blocks of client addresses, for limits per client."""

import ipaddress
import re

#: An unparsable address is cut to this many characters: it may come from a header.
MAX_UNPARSED_CHARACTERS = 64
_BRACKETED = re.compile(r"\[([^\]]*)\](?::\d+)?")
_WITH_PORT = re.compile(r"([^:]+):\d+")


def address_block(address: str, *, ipv4_prefix: int = 32, ipv6_prefix: int = 64) -> str:
    """Return the network that an address belongs to, such as `192.0.2.1/32` or `2001:db8::/64`.

    One client usually has a whole /64 of IPv6 (RFC 6177), so limits count that. Ports, brackets and IPv6 zones are
    ignored, and an IPv4 address that is mapped into IPv6 counts as IPv4. Text that is not an address is returned as it
    is, up to 64 characters.
    """
    text = address.strip()
    if (found := _BRACKETED.fullmatch(text) or _WITH_PORT.fullmatch(text)) is not None:
        text = found[1]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return address[:MAX_UNPARSED_CHARACTERS]
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or parsed
    prefix = ipv4_prefix if parsed.version == 4 else ipv6_prefix
    return str(ipaddress.ip_network((parsed, prefix), strict=False))


def is_loopback(address: str) -> bool:
    """Whether this is an address of the machine itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped.is_loopback
    return parsed.is_loopback
