"""Blocks of client addresses."""

import pytest

from api.http.addresses import address_block, is_loopback


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.1:8000", "192.0.2.1/32"),
        (" 192.0.2.1 ", "192.0.2.1/32"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
        ("[::ffff:192.0.2.1]:8000", "192.0.2.1/32"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::6]", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::6]:443", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("", ""),
        ("x" * 1000, "x" * 64),
    ],
)
def test_an_address_belongs_to_a_block(address: str, block: str) -> None:
    assert address_block(address) == block


def test_blocks_may_be_larger() -> None:
    assert address_block("192.0.2.200", ipv4_prefix=24) == "192.0.2.0/24"
    assert address_block("2001:db8:1:2::6", ipv6_prefix=48) == "2001:db8:1::/48"


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False), ("", False)],
)
def test_loopback_is_the_machine_itself(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
