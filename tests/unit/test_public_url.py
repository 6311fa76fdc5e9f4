"""PUBLIC_URL and ALLOWED_HOSTS: what they may be, and what they mean."""

import re

import pytest

from api.app import create_app
from api.services import make_services
from shared.settings.public_url import FIRST_SEGMENTS, is_host_pattern, parse_public_url
from tests.support.servers import make_settings


@pytest.mark.parametrize(
    ("text", "host", "origin", "prefix"),
    [
        ("https://example.com", "example.com", "https://example.com", ""),
        ("HTTPS://Example.COM:443/", "example.com", "https://example.com", ""),
        ("https://example.com:8443/a/b//", "example.com", "https://example.com:8443", "/a/b"),
        ("http://[::1]:80/promptwire", "[::1]", "http://[::1]", "/promptwire"),
        ("https://bücher.example/prompts-of-all", "xn--bcher-kva.example", "https://xn--bcher-kva.example", None),
        ("https://example.com/apps/prompts/", "example.com", "https://example.com", "/apps/prompts"),
    ],
)
def test_a_public_url_has_a_host_an_origin_and_a_prefix(text: str, host: str, origin: str, prefix: str | None) -> None:
    url = parse_public_url(text)
    assert (url.host, url.origin) == (host, origin)
    assert prefix is None or url.prefix == prefix
    assert parse_public_url(str(url)) == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("example.com", "not the URL of a website"),
        ("ftp://example.com", "not the URL of a website"),
        ("https://", "not the URL of a website"),
        ("https://example.com:https", "not the URL of a website"),
        ("https://example.com/a b", "not the URL of a website"),
        ("https://example.com/a/../b", "not the URL of a website"),
        ("https://example.com/%70rompts", "not the URL of a website"),
        ("https://me:secret@example.com", "no user, query or fragment"),
        ("https://example.com/?a=b", "no user, query or fragment"),
        ("https://example.com/prompts", "the API has paths below /prompts itself"),
        ("https://example.com//ws/x/", "the API has paths below /ws itself"),
    ],
)
def test_a_public_url_that_cannot_work_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        parse_public_url(text)


def test_the_first_segments_are_those_of_all_routes() -> None:
    """Otherwise a request could mean two things: with a prefix, or without one."""
    settings = make_settings()
    rules = create_app(settings, make_services(settings)).url_map.iter_rules()
    assert {rule.rule.split("/")[1] for rule in rules} - {""} == FIRST_SEGMENTS


@pytest.mark.parametrize(
    "text", ["*", "example.com", ".example.com", "10.0.0.1", "[::1]", "api", "my_api", "LOCALHOST"]
)
def test_a_host_pattern_is_accepted(text: str) -> None:
    assert is_host_pattern(text)


@pytest.mark.parametrize("text", ["https://example.com", "example.com:8000", "*.example.com", "a b", "", ".", "::1"])
def test_another_text_is_not_a_host_pattern(text: str) -> None:
    assert not is_host_pattern(text)
