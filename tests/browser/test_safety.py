"""Texts with markup and scripts in them, which the page must show as text."""

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.support.browser import Visitor

pytestmark = pytest.mark.usefixtures("gate")

ATTACKS = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    "<a href=\"javascript:document.title='owned'\">press</a><style>*{display:none}</style>",
    "</p></article><svg onload=\"document.title='owned'\">{{7*7}}${7*7}",
]
_INJECTED = ":is(.card, dialog, #login, .toast) :is(img, script, a, style, svg)"


def assert_unharmed(visitor: Visitor) -> None:
    assert visitor.page.locator(_INJECTED).count() == 0
    assert visitor.page.title() == "Promptwire"


def test_a_prompt_and_its_answer_are_shown_as_text(alice: Visitor) -> None:
    for attack in ATTACKS:
        card = alice.submit(attack)
        alice.expect_status(card, "Answered")
        expect(card.locator(".prompt")).to_have_text(attack)
        expect(alice.answer(card)).to_contain_text(attack)  # the simulated answer quotes it
        found = alice.search(attack).filter(has_text=attack)
        expect(found).to_have_count(1)
        alice.press(found, "Delete")
        expect(alice.page.get_by_role("dialog")).to_contain_text(attack)
        assert_unharmed(alice)
        alice.page.keyboard.press("Escape")


def test_a_username_is_shown_as_text(visit: Callable[..., Visitor], url: str) -> None:
    mallory = visit(url)
    mallory.refusals |= {400, 401}
    for attack in ATTACKS:
        for button in ("Register", "Log in"):
            mallory.enter(button, attack)
            expect(mallory.page.get_by_role("alert").first).not_to_be_empty()
            expect(mallory.page.get_by_role("button", name="Log in")).to_be_enabled()
            assert_unharmed(mallory)


def test_the_browser_blocks_what_the_policy_forbids(alice: Visitor) -> None:
    """Also checks that these tests would notice a violation."""
    alice.page.evaluate(
        """() => {
            const image = document.createElement("img");
            image.src = "data:image/gif;base64,R0lGODlhAQABAAAAACw=";
            document.body.append(image);
        }"""
    )
    message = "() => { try { document.body.innerHTML = '<b>'; } catch (error) { return error.message; } }"
    assert "TrustedHTML" in alice.page.evaluate(message)
    expect(alice.page.get_by_role("banner")).to_be_visible()
    for violated in ("img-src", "TrustedHTML"):
        assert any(violated in complaint for complaint in alice.complaints)
    alice.complaints.clear()
