"""URLs and addresses of webhooks: nothing that leads into the service's own network."""

from ipaddress import ip_address

import pytest

from shared.webhooks.addresses import check_url, is_public, parse_address

_PRIVATE_HOSTS = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7F.1",
    "017700000001",
    "0",
    "0.0.0.0",  # noqa: S104
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "168.63.129.16",
    "169.254.169.254",
    "2852039166",  # 169.254.169.254
    "100.64.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "4294967295",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::1]",
    "[100::1]",
    "[2001::1]",
    "[2001:0:7f00:1::]",
    "[2001:db8::1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[2606:4700::1111%25eth0]",
    "[fec0::1]",
    "[ff02::1]",
    "127。0。0。1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "service.localhost",
]


@pytest.mark.parametrize("host", _PRIVATE_HOSTS)
def test_a_webhook_has_no_private_address_in_any_notation(host: str) -> None:
    with pytest.raises(ValueError, match="public addresses only"):
        check_url(f"https://{host}/hook", allow_private=False)
    with pytest.raises(ValueError, match="public addresses only"):
        check_url(f"https://{host}:8443?x=@example.com", allow_private=False)


@pytest.mark.parametrize("host", _PRIVATE_HOSTS[:46])
def test_private_addresses_are_allowed_where_the_operator_says_so(host: str) -> None:
    check_url(f"http://{host}/hook", allow_private=True)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "https:example.com",
        "https:/example.com",
        "https://",
        "https://.",
        "https:///hook",
        "https://?x",
        "http://example.com/",
        "HTTP://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com:80@127.0.0.1/",
        "https://example.com#@127.0.0.1/",
        "https://example.com/#",
        "https://example.com\\@127.0.0.1/",
        "https:\\\\127.0.0.1/",
        "https://example.com /",
        " https://example.com/",
        "https://example.com/\r\nHost: internal",
        "https://exam\tple.com/",
        "https://example.com\x00/",
        "https://①②⑦.⓪.⓪.①/",
        "https://1２7.0.0.1/",  # noqa: RUF001
        "https://١٢٧.0.0.1/",
        "https://%31%32%37.0.0.1/",
        "https://127.0.0.1%00.example.com/",
        "https://127.0.0.1%2f.example.com/",
        "https://0177.0.0.1/",
        "https://4294967296/",
        "https://1.2.3.4.5/",
        "https://example.0x7f/",
        "https://0x/",
        "https://::1/",
        "https://[::1/",
        "https://[127.0.0.1]/",
        "https://[not-an-address]/",
        "https://example..com/",
        "https://exam\xadple.com/",
        "https://example.com/\ud800",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:-1/",
        "https://example.com:x/",
        "https://example.com/" + "x" * 2_048,
    ],
)
def test_a_malformed_or_misleading_url_is_refused_with_a_sentence(url: str) -> None:
    with pytest.raises(ValueError, match=r"\.$"):
        check_url(url, allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com./hook",
        "https://EXAMPLE.com:8443/hook?token=a@b//c&x=%20",
        "https://xn--bcher-kva.example/",
        "https://bücher.example/",
        "https://xn--.example/",
        "https://my_app.example.com/",
        "https://8.8.8.8/",
        "https://[2606:4700:4700::1111]:443/",
        "https://[64:ff9b::8.8.8.8]/",
        "https://localhost.example.com/",
        "https://127.0.0.1.example.com/",
    ],
)
def test_names_and_public_addresses_are_accepted(url: str) -> None:
    check_url(url, allow_private=False)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_an_address_with_a_zone_is_not_public() -> None:
    assert not is_public(ip_address("2606:4700::1%eth0"))


def test_a_name_is_not_an_address() -> None:
    assert parse_address("example.com") is None
