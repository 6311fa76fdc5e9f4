"""The page for eyes, ears and fingers: contrast and roles (axe), small screens, the keyboard, light and dark."""

from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Gate
from tests.support.browser import PHONE, Visitor
from tests.support.client import PASSWORD

pytestmark = pytest.mark.usefixtures("gate")

_LONG = "word " * 400
_UNBROKEN = "x" * 400


def assert_accessible(page: Page) -> None:
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def assert_fits(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def fill(visitor: Visitor, gate: Gate) -> None:
    """Prompts of many kinds: one that is cancelled, a long one, one that nothing can break."""
    for prompt in (_LONG, _UNBROKEN):
        visitor.expect_status(visitor.submit(prompt.strip()), "Answered")
    with gate.closed():
        cancelled = visitor.submit("never mind")
        visitor.press(cancelled, "Cancel")
        visitor.expect_status(cancelled, "Cancelled")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 800}], ids=["phone", "desktop"])
def test_nothing_is_in_anybodys_way(
    visit: Callable[..., Visitor], url: str, gate: Gate, username: str, scheme: str, viewport: dict[str, int]
) -> None:
    alice = visit(url, color_scheme=scheme, viewport=viewport, reduced_motion="reduce")

    def check() -> None:
        assert_accessible(alice.page)
        assert_fits(alice.page)

    check()
    alice.refusals.add(401)
    alice.enter("Log in", username)
    expect(alice.page.get_by_role("alert").first).not_to_be_empty()
    check()
    alice.register(username)
    check()
    fill(alice, gate)
    alice.page.get_by_text("Keyboard").click()
    with gate.closed():
        alice.expect_status(alice.submit("Explain the tides"), "Answering")
        check()
    expect(alice.search(_UNBROKEN)).not_to_have_count(0)
    check()
    alice.press(alice.page.locator("#found .card").first, "Delete")
    expect(alice.page.get_by_role("dialog")).to_be_visible()
    check()


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
        for name in ("Submit", "Find by meaning"):
            keyboard.press("Tab")
            expect(alice.page.locator(":focus")).to_have_accessible_name(name)
        keyboard.press("Tab")
        expect(card.get_by_role("button", name="Cancel")).to_be_focused()
        keyboard.press("Enter")
        alice.expect_status(card, "Cancelled")
    keyboard.press("Tab")
    expect(card.get_by_role("button", name="Retry")).to_be_focused()
    keyboard.press("Enter")
    alice.expect_status(card, "Answered")

    keyboard.press("Control+k")
    expect(alice.page.get_by_role("searchbox")).to_be_focused()
    keyboard.type("salty sea")
    expect(alice.page.locator("#found .card")).to_have_count(1)
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


def test_where_the_focus_is_can_be_seen(alice: Visitor) -> None:
    for element in alice.page.locator(
        "button:visible, input:visible, textarea:visible, a:visible, summary:visible"
    ).all():
        element.focus()
        alice.page.keyboard.press("Shift")  # a key was the last thing, so the focus is to be seen
        assert alice.page.evaluate(
            """() => {
                // The prompt's frame shows it for the field in it.
                const focused = document.activeElement;
                const shown = focused.matches(".composer textarea") ? focused.form : focused;
                const { outlineStyle, outlineWidth } = getComputedStyle(shown);
                return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
            }"""
        ), element


class TestLightAndDark:
    def ground(self, page: Page) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    def test_it_is_as_the_system_has_it(self, visit: Callable[..., Visitor], url: str) -> None:
        page = visit(url, color_scheme="light").page
        light = self.ground(page)
        page.emulate_media(color_scheme="dark")
        assert self.ground(page) != light

    def test_a_choice_is_remembered(self, visit: Callable[..., Visitor], url: str) -> None:
        page = visit(url, color_scheme="light").page
        light = self.ground(page)
        page.get_by_role("button", name="Dark colours").click()
        dark = self.ground(page)
        assert dark != light
        page.reload()
        assert self.ground(page) == dark
        page.get_by_role("button", name="Light colours").click()
        assert self.ground(page) == light


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_those_who_want_no_motion_get_none(
    visit: Callable[..., Visitor], url: str, gate: Gate, username: str, motion: str
) -> None:
    alice = visit(url, reduced_motion=motion)
    alice.register(username)
    with gate.closed():
        alice.expect_status(alice.submit("Explain the tides"), "Answering")
        assert (alice.page.evaluate("document.getAnimations().length") > 0) is (motion == "no-preference")
