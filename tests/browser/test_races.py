"""An event or a response that belongs to an earlier action and comes late must not decide a later one."""

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Route, expect

from tests.support.browser import Visitor

pytestmark = pytest.mark.usefixtures("gate")

_TOO_MANY_REQUESTS = {
    "status": 429,
    "headers": {"Content-Type": "application/problem+json", "Retry-After": "600"},
    "json": {"type": "about:blank", "title": "Too Many Requests", "status": 429, "detail": "Try again in 600 s."},
}


def press_on_close(card: Locator, button: str) -> None:
    """Press a button of a card when the dialog next dispatches `close`, before the page's own listener runs."""
    card.get_by_role("button", name=button).evaluate(
        "(button) => addEventListener('close', () => button.click(), { capture: true, once: true })"
    )


def dialog_button(visitor: Visitor, name: str) -> Locator:
    return visitor.page.get_by_role("dialog").get_by_role("button", name=name)


def log_out(visitor: Visitor) -> None:
    visitor.page.get_by_role("button", name="Log out").click()
    expect(visitor.page.get_by_label("Username")).to_be_visible()


def hold(visitor: Visitor, pattern: str, act: Callable[[], None]) -> Route:
    """Do something and return its request, which matches this pattern and is not sent."""
    held: list[Route] = []
    visitor.page.route(pattern, lambda route: held.append(route), times=1)
    act()
    while not held:
        visitor.page.wait_for_timeout(10)
    return held[0]


class TestConfirmation:
    def test_a_dialog_that_is_opened_again_before_its_close_event_keeps_its_answer(self, alice: Visitor) -> None:
        card = alice.submit("What is a tide?")
        alice.expect_status(card, "Answered")
        press_on_close(card, "Delete")
        alice.press(card, "Delete")
        alice.page.keyboard.press("Escape")
        dialog_button(alice, "Delete").click()
        expect(card).to_have_count(0)

    def test_a_deletion_is_carried_out_although_another_dialog_opens_before_the_close_event(
        self, alice: Visitor
    ) -> None:
        first, second = (alice.submit(text) for text in ("What is a tide?", "Why is the sea salty?"))
        for card in (first, second):
            alice.expect_status(card, "Answered")
        alice.press(first, "Delete")
        second.get_by_role("button", name="Delete").evaluate(
            """(next) => {
                document.querySelector("#confirm [value=yes]").click();
                next.click();
            }"""
        )
        expect(alice.page.get_by_role("dialog")).to_contain_text("Why is the sea salty?")
        dialog_button(alice, "Keep it").click()
        expect(first).to_have_count(0)
        expect(second).to_be_visible()


class TestAnotherUserInTheSameTab:
    def test_the_wait_after_too_many_prompts_does_not_hold_up_the_next_user(
        self, alice: Visitor, username: str
    ) -> None:
        alice.refusals.add(429)
        alice.page.route("**/prompts/", lambda route: route.fulfill(**_TOO_MANY_REQUESTS), times=1)
        alice.prompt_field.fill("one too many")
        alice.page.keyboard.press("Control+Enter")
        expect(alice.page.locator("#submit")).to_contain_text("Wait")
        log_out(alice)
        alice.register(f"other-{username}")
        expect(alice.page.locator("#composer-error")).to_be_empty()
        alice.expect_status(alice.submit("What is a tide?"), "Answered")

    def test_a_late_refusal_of_a_prompt_is_not_shown_to_the_next_user(self, alice: Visitor, username: str) -> None:
        alice.refusals.add(429)
        alice.prompt_field.fill("submitted before the logout")
        submission = hold(alice, "**/prompts/", lambda: alice.page.keyboard.press("Control+Enter"))
        log_out(alice)
        alice.register(f"other-{username}")
        alice.expect_status(alice.submit("What is a tide?"), "Answered")
        submission.fulfill(**_TOO_MANY_REQUESTS)
        alice.expect_status(alice.submit("Why is the sea salty?"), "Answered")
        expect(alice.page.locator("#composer-error")).to_be_empty()
        expect(alice.page.locator("#submit")).to_have_text("Submit")

    def test_a_late_page_of_the_list_does_not_decide_where_the_next_users_list_goes_on(
        self, alice: Visitor, username: str
    ) -> None:
        expect(alice.page.get_by_text("Nothing here yet.", exact=False)).to_be_visible()
        reload = "document.dispatchEvent(new Event('visibilitychange'))"
        page = hold(alice, "**/prompts/?limit=20*", lambda: alice.page.evaluate(reload))
        log_out(alice)
        alice.register(f"other-{username}")
        link: dict[str, Any] = {"Link": '</prompts/?cursor=x>; rel="next"'}
        page.fulfill(json=[], headers=link)
        alice.expect_status(alice.submit("What is a tide?"), "Answered")
        expect(alice.page.get_by_role("button", name="More")).to_be_hidden()
