"""Prompts whose texts were removed because of their age, on the page."""

import pytest
from playwright.sync_api import expect
from sqlalchemy import text

from shared.db.engine import make_engine
from shared.settings import Settings
from tests.support.browser import Visitor

pytestmark = pytest.mark.usefixtures("gate")

_EMPTY = text("""
    UPDATE prompts SET prompt_text = '', response_text = NULL, status = :status, emptied_at = now()
    WHERE user_id = (SELECT id FROM users WHERE username = :username)
""")


@pytest.mark.parametrize(("status", "shown"), [("completed", "Answered"), ("failed", "Failed")])
def test_the_page_says_that_the_texts_were_removed_and_offers_no_retry(
    alice: Visitor, username: str, settings: Settings, status: str, shown: str
) -> None:
    alice.expect_status(alice.submit("Yesterday's news"), "Answered")
    engine = make_engine(settings, application_name="test")
    with engine.begin() as connection:
        connection.execute(_EMPTY, {"username": username, "status": status})
    engine.dispose()
    alice.page.reload()
    card = alice.cards.first
    alice.expect_status(card, shown)
    expect(card.locator(".prompt")).to_have_text("The texts of this prompt were removed because of its age.")
    expect(card.locator(".answer")).to_be_hidden()
    expect(card.get_by_role("button", name="Retry")).to_be_hidden()
    expect(card.get_by_role("button", name="Delete")).to_be_visible()
