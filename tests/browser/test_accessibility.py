"""Accessibility of the page: contrast and roles (axe), small screens, the keyboard, colours and motion."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Gate, Visitor, assert_accessible
from tests.support.client import PASSWORD

pytestmark = pytest.mark.usefixtures("gate")

_LONG_TEXT = "word " * 400
_LONG_WORD = "x" * 400
_MARKDOWN = "# Title\n\n| a | b |\n|-|-|\n| 1 | 2 |\n\n```python\ndef f(x): return 'x' + 1  # y\n```\n[a](https://b.c)"


def fill(visitor: Visitor, gate: Gate) -> None:
    """Submit a long prompt, one with a long word, and one that is then cancelled."""
    for prompt in (_LONG_TEXT, _LONG_WORD, _MARKDOWN):
        visitor.expect_status(visitor.submit(prompt.strip()), "Answered")
    with gate.closed():
        cancelled = visitor.submit("never mind")
        visitor.press(cancelled, "Cancel")
        visitor.expect_status(cancelled, "Cancelled")


def test_every_view_is_accessible_and_fits_the_screen(
    visit: Callable[..., Visitor], url: str, gate: Gate, username: str
) -> None:
    alice = visit(url, reduced_motion="reduce")
    assert_accessible(alice.page)
    alice.refusals.add(401)
    alice.enter("Log in", username)
    expect(alice.page.get_by_role("alert").first).not_to_be_empty()
    assert_accessible(alice.page)
    alice.register(username)
    assert_accessible(alice.page)
    fill(alice, gate)
    alice.page.get_by_text("Keyboard").click()
    with gate.closed():
        alice.expect_status(alice.submit("Explain the tides"), "Answering")
        assert_accessible(alice.page)
    expect(alice.search(_LONG_WORD)).not_to_have_count(0)
    assert_accessible(alice.page)
    alice.press(alice.page.locator("#found .card").first, "Delete")
    expect(alice.page.get_by_role("dialog")).to_be_visible()
    assert_accessible(alice.page)


def test_everything_can_be_done_with_the_keyboard(
    visit: Callable[..., Visitor], url: str, gate: Gate, username: str
) -> None:
    alice = visit(url)
    keyboard = alice.page.keyboard
    expect(alice.page.get_by_label("Username")).to_be_focused()
    keyboard.type(username)
    keyboard.press("Tab")
    keyboard.type(PASSWORD)
    for name in ("Log in", "Register"):
        keyboard.press("Tab")
        expect(alice.page.get_by_role("button", name=name)).to_be_focused()
    keyboard.press("Enter")
    alice.expect_live()

    expect(alice.prompt_field).to_be_focused()
    keyboard.type("Why is the sea salty?")
    card = alice.card("Why is the sea salty?")
    with gate.closed():
        keyboard.press("Control+Enter")
        alice.expect_status(card, "Answering")
        search = ("Search your answered prompts", "How to search")
        for name in ("Submit", *search, "Export", "Show prompts that are", "Link to prompt "):
            keyboard.press("Tab")
            expect(alice.page.locator(":focus")).to_have_accessible_name(re.compile(f"^{name}"))
        keyboard.press("Tab")
        expect(card.get_by_role("button", name="Cancel")).to_be_focused()
        keyboard.press("Enter")
        alice.expect_status(card, "Cancelled")
        expect(card).to_be_focused()
    for _ in range(2):
        keyboard.press("Tab")
    expect(card.get_by_role("button", name="Retry")).to_be_focused()
    keyboard.press("Enter")
    alice.expect_status(card, "Answered")

    keyboard.press("Control+k")
    expect(alice.page.get_by_role("searchbox")).to_be_focused()
    keyboard.type("salty sea")
    expect(alice.page.locator("#found .card")).to_have_count(1)
    for _ in range(4):  # how to search, the link, Copy, Delete
        keyboard.press("Tab")
    keyboard.press("Enter")
    expect(alice.page.get_by_role("button", name="Keep it")).to_be_focused()
    keyboard.press("Escape")
    expect(alice.page.get_by_role("dialog")).to_be_hidden()
    keyboard.press("Enter")
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(alice.page.locator("#found .card")).to_have_count(0)
    assert alice.page.evaluate("document.activeElement !== document.body")


def test_the_focused_element_is_visible_as_such(alice: Visitor) -> None:
    for element in alice.page.locator(
        "button:visible, input:visible, select:visible, textarea:visible, a:visible, summary:visible"
    ).all():
        element.focus()
        alice.page.keyboard.press("Shift")  # browsers show the focus only after a key press
        assert alice.page.evaluate(
            """() => {
                // The form shows the focus of the prompt field inside it.
                const focused = document.activeElement;
                const shown = focused.matches(".composer textarea") ? focused.form : focused;
                const { outlineStyle, outlineWidth } = getComputedStyle(shown);
                return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
            }"""
        ), element


class TestColours:
    def background(self, page: Page) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    def test_the_page_follows_the_system(self, visit: Callable[..., Visitor], url: str) -> None:
        page = visit(url, color_scheme="light").page
        light = self.background(page)
        page.emulate_media(color_scheme="dark")
        assert self.background(page) != light

    def test_the_page_remembers_the_users_choice(self, visit: Callable[..., Visitor], url: str) -> None:
        page = visit(url, color_scheme="light").page
        light = self.background(page)
        page.get_by_role("button", name="Dark colours").click()
        dark = self.background(page)
        assert dark != light
        page.reload()
        assert self.background(page) == dark
        page.get_by_role("button", name="Light colours").click()
        assert self.background(page) == light


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_the_page_animates_nothing_if_the_user_prefers_reduced_motion(
    visit: Callable[..., Visitor], url: str, gate: Gate, username: str, motion: str
) -> None:
    alice = visit(url, reduced_motion=motion)
    alice.register(username)
    with gate.closed():
        alice.expect_status(alice.submit("Explain the tides"), "Answering")
        assert (alice.page.evaluate("document.getAnimations().length") > 0) is (motion == "no-preference")
