"""Prompts that programs submit and delete, pages of single prompts, and what happens around a cancellation."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.support.browser import Gate, Visitor
from tests.support.client import PASSWORD
from tests.support.processes import RemoteUser

pytestmark = pytest.mark.usefixtures("gate")


def test_prompts_of_programs_appear_are_answered_and_disappear(
    alice: Visitor, url: str, gate: Gate, username: str
) -> None:
    remote = RemoteUser(url, username, is_new=False)
    with gate.closed():
        submitted = remote.submit("From a program", websocket=False)
        card = alice.card("From a program")
        expect(card.get_by_role("button", name="Cancel")).to_be_visible()
        expect(alice.page).to_have_title("(1) Promptwire")
    alice.expect_status(card, "Answered")
    expect(alice.page).to_have_title("Promptwire")
    remote.http.delete(f"/prompts/{submitted}/").raise_for_status()
    expect(card).to_have_count(0)


def test_a_prompt_has_a_page_of_its_own_for_its_user(
    visit: Callable[..., Visitor], alice: Visitor, url: str, gate: Gate, username: str
) -> None:
    alice.expect_status(alice.submit("What is a tide?"), "Answered")
    with gate.closed():
        card = alice.submit("Why is the sea salty?")
        alice.expect_status(card, "Answering")
        address = card.get_by_role("link").get_attribute("href")
        assert address.startswith(f"{url}/p/")
        reader = visit(address)
        reader.enter("Log in", username, PASSWORD)  # on another device
        expect(reader.cards).to_have_count(1)
        expect(reader.page.get_by_role("heading", name=re.compile(r"^Prompt \d+$"))).to_be_visible()
        expect(reader.page).to_have_title(re.compile(r"^\(1\) Prompt \d+ . Promptwire$"))
        reader.expect_live()
        expect(reader.prompt_field).to_be_hidden()
    expect(reader.cards.locator(".status")).to_have_text("Answered")
    expect(reader.answer(reader.cards)).to_contain_text("You asked “Why is the sea salty?”")
    alice.press(card, "Delete")
    alice.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(reader.page.get_by_text("It may have been deleted.")).to_be_visible()
    reader.page.get_by_role("link", name="All prompts").click()
    expect(reader.cards.locator(".prompt")).to_have_text("What is a tide?")

    mallory = visit(address)
    mallory.refusals.add(404)
    mallory.register(f"other-{username}")
    expect(mallory.page.get_by_text("It may have been deleted.")).to_be_visible()


def test_a_cancellation_keeps_the_text_and_the_focus_and_a_deletion_focuses_the_next_card(
    alice: Visitor, gate: Gate
) -> None:
    for text in ("first", "second"):
        alice.expect_status(alice.submit(text), "Answered")
    with gate.closed():
        card = alice.submit("third")
        expect(alice.answer(card)).not_to_be_empty()
        written = alice.answer(card).text_content()
        card.get_by_role("button", name="Cancel").focus()
        alice.page.keyboard.press("Enter")
        alice.expect_status(card, "Cancelled")
    expect(alice.answer(card)).to_have_text(written)
    expect(card.get_by_text("This is as far as the answer got.")).to_be_visible()
    expect(card).to_be_focused()
    alice.press(card, "Delete")
    alice.page.keyboard.press("Tab")
    alice.page.keyboard.press("Enter")
    expect(card).to_have_count(0)
    expect(alice.card("second")).to_be_focused()
