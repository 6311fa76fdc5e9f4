"""Clients' addresses, and the blocks of addresses that limits count by."""

import ipaddress
import re

MAX_UNPARSED_CHARACTERS = 64

# `192.0.2.1:443` and `[2001:db8::1]:443`, as some proxies write into X-Forwarded-For; also without the port.
_WITH_PORT = re.compile(r"\[([^\[\]]+)\](?::\d*)?|([^:]+):\d*")


def address_block(address: str, *, ipv4_prefix: int = 32, ipv6_prefix: int = 64) -> str:
    """The network of an address, such as `192.0.2.0/24` or `2001:db8::/64`.

    The prefixes are lengths in bits. A port, brackets and a zone (`%eth0`) do not matter, and an IPv4 address that is
    mapped into IPv6 counts as IPv4. Text that is not an address is returned as it is, at most 64 characters of it.
    """
    text = address.strip()
    if (found := _WITH_PORT.fullmatch(text)) is not None:
        text = found[1] or found[2]
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return address[:MAX_UNPARSED_CHARACTERS]
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    prefix = ipv4_prefix if parsed.version == 4 else ipv6_prefix
    return str(ipaddress.ip_network((parsed, prefix), strict=False))
