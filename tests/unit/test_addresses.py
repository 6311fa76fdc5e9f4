"""Blocks of client addresses."""

import pytest

from api.http.addresses import MAX_UNPARSED_CHARACTERS, address_block, is_loopback


@pytest.mark.parametrize(
    ("address", "block"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("192.0.2.77:50123", "192.0.2.0/24"),
        (" 192.0.2.77 ", "192.0.2.0/24"),
        ("[192.0.2.77]:50123", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::9", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2::9]:443", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("[::ffff:192.0.2.77]:443", "192.0.2.0/24"),
    ],
)
def test_addresses_of_a_network_have_one_block_whatever_their_port_and_form(address: str, block: str) -> None:
    assert address_block(address, ipv4_prefix=24) == block


def test_an_ipv4_address_is_a_block_of_its_own_by_default() -> None:
    assert address_block("192.0.2.77:1") == "192.0.2.77/32"


@pytest.mark.parametrize("text", ["", "unknown", "_hidden", "192.0.2.300", "1.2.3.4:x", "[::1", "unix:"])
def test_a_text_that_is_not_an_address_is_its_own_block(text: str) -> None:
    assert address_block(text) == text


def test_a_long_text_is_cut() -> None:
    assert address_block("x" * 10_000) == "x" * MAX_UNPARSED_CHARACTERS


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False), ("", False)],
)
def test_loopback_is_the_machine_itself(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
