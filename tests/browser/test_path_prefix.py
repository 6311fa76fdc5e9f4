"""The pages below a path that a proxy removes, without any setting of the API."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.support import tcp_proxy
from tests.support.browser import Visitor
from tests.support.tcp_proxy import is_upgrade, with_header

PREFIX = "/promptwire"

pytestmark = pytest.mark.usefixtures("gate")


def remove_prefix(head: bytes) -> bytes:
    head = head.replace(f" {PREFIX}/".encode(), b" /", 1)
    return head if is_upgrade(head) else with_header(head, b"Connection", b"close")


@pytest.fixture
def prefixed_url(url: str) -> Iterator[str]:
    with tcp_proxy.running(url) as proxy:
        proxy.rewrite = lambda head: remove_prefix(head) if f" {PREFIX}/".encode() in head else None
        yield f"{proxy.url}{PREFIX}"


def test_prompts_are_answered_live_and_found(visit: Callable[..., Visitor], prefixed_url: str, username: str) -> None:
    alice = visit(f"{prefixed_url}/")
    alice.register(username)
    alice.expect_status(alice.submit("What is a tide?"), "Answered")
    alice.page.reload()
    alice.expect_live()
    expect(alice.card("What is a tide?")).to_be_visible()
    expect(alice.search("tides")).to_have_count(1)


def test_the_documentation_calls_the_api_below_the_prefix(visit: Callable[..., Visitor], prefixed_url: str) -> None:
    reader = visit(f"{prefixed_url}/")
    reader.page.get_by_role("link", name="API reference").click()
    expect(reader.page.locator("#operations-Operations-isAlive")).to_be_visible()
    assert reader.page.url == f"{prefixed_url}/docs/"
    assert reader.page.evaluate("ui.specSelectors.specJson().toJS().servers") == [{"url": prefixed_url}]
