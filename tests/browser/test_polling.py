"""The page behind a proxy that does not let WebSockets through."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.support import tcp_proxy
from tests.support.browser import Gate, Visitor
from tests.support.processes import RemoteUser
from tests.support.tcp_proxy import TcpProxy, is_upgrade

_START = """async () => {
    const { Polling } = await import("/static/polling.js");
    Object.assign(window, { polls: 0, isHidden: false, isWaiting: true, hasFailed: false });
    Object.defineProperty(document, "hidden", { get: () => isHidden });
    Math.random = () => 0.5;
    const poll = async () => { polls += 1; return !hasFailed; };
    window.polling = new Polling({ poll, done: () => {}, isWaiting: () => isWaiting });
    polling.start();
}"""


@pytest.fixture
def proxy(url: str) -> Iterator[TcpProxy]:
    with tcp_proxy.running(url) as running:
        running.rewrite = lambda head: None if is_upgrade(head) else head
        yield running


def test_without_sockets_the_page_polls_and_goes_live_once_they_work(
    visit: Callable[..., Visitor], proxy: TcpProxy, gate: Gate, username: str
) -> None:
    alice = visit(proxy.url)
    alice.refusals.add(403)
    alice.enter("Register", username)
    state = alice.page.locator("#connection-state")
    expect(state).to_contain_text("Polling for answers. Retrying in")
    with gate.closed():
        card = alice.submit("What is a tide?")
        alice.expect_status(card, "Answering")
        announcements = alice.announcements()
    alice.expect_status(card, "Answered")
    expect(alice.answer(card)).to_contain_text("You asked “What is a tide?”")
    expect(alice.page.locator("#announcer")).to_contain_text("was answered")
    expect(state).to_contain_text("Polling for answers.")

    proxy.rewrite = lambda head: head
    alice.page.get_by_role("button", name="Try now").click()
    alice.expect_live()
    RemoteUser(proxy.url, username, is_new=False).submit("Submitted elsewhere")
    alice.expect_status(alice.card("Submitted elsewhere"), "Answered")
    expect(alice.page.locator("#announcer")).to_contain_text("Submitted elsewhere")
    assert len([announcement for announcement in announcements() if "What is a tide?" in announcement]) == 1


def test_intervals_between_polls_grow_and_a_hidden_tab_does_not_poll(visit: Callable[..., Visitor], url: str) -> None:
    page = visit(url).page
    page.clock.install()
    page.evaluate(_START)

    def polls_in(seconds: int) -> int:
        before = page.evaluate("polls")
        page.clock.run_for(seconds * 1000)
        return page.evaluate("polls") - before

    assert [polls_in(10) for _ in range(4)] == [4, 1, 1, 1]  # after 1, 2.5, 4.8, 8.1, 13.2, 20.8 and 32.2 s
    page.evaluate("polling.soon()")
    assert polls_in(10) == 4
    page.evaluate("isHidden = true")
    assert polls_in(120) == 0
    page.evaluate("isHidden = false; polling.soon()")
    assert polls_in(10) == 4
    page.evaluate("isWaiting = false")
    assert 3 <= polls_in(60) <= 4
    page.evaluate("isWaiting = hasFailed = true")
    assert 3 <= polls_in(60) <= 4
    page.evaluate("polling.stop()")
    assert polls_in(60) == 0
