"""What a user does with the page, from registration to logout."""

from collections.abc import Callable

import pytest
import redis
from playwright.sync_api import Browser, expect

from shared.settings import Settings
from tests.support import processes
from tests.support.browser import Gate, Visitor
from tests.support.processes import RemoteUser
from tests.support.servers import Servers

pytestmark = pytest.mark.usefixtures("gate")

_TIDES = "Explain what causes ocean tides"


def test_a_user_does_everything_without_reloading_the_page(
    visit: Callable[..., Visitor], url: str, gate: Gate, username: str
) -> None:
    alice = visit(url)
    loads: list[object] = []
    alice.page.on("load", lambda page: loads.append(page))
    alice.register(username)
    expect(alice.page.get_by_text("Nothing here yet.", exact=False)).to_be_visible()

    with gate.closed():
        card = alice.submit(_TIDES)
        alice.expect_status(card, "Answering")
        expect(alice.answer(card)).to_have_text("Here is an explanation")
    alice.expect_status(card, "Answered")
    expect(alice.answer(card)).to_have_text(
        f"Here is an explanation for “{_TIDES}”. Start from what it is for, then look at its parts, and last at how "
        "they work together. A real model would go on from here; this answer is simulated."
    )
    expect(alice.page.get_by_role("status")).to_contain_text("was answered: Here is an explanation")

    found = alice.search("tides of the ocean")
    expect(found).to_have_count(1)
    expect(found).to_contain_text(_TIDES)
    expect(found.locator(".similarity")).to_contain_text("similar")
    alice.page.keyboard.press("Escape")
    expect(alice.cards).to_have_count(1)

    with gate.closed():
        salt = alice.submit("Why is the sea salty?")
        alice.press(salt, "Cancel")
        alice.expect_status(salt, "Cancelled")
        alice.press(salt, "Retry")
        alice.expect_status(salt, "Answering")
    alice.expect_status(salt, "Answered")
    expect(alice.answer(salt)).to_contain_text("You asked “Why is the sea salty?”")

    alice.press(salt, "Delete")
    alice.page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    expect(salt).to_be_visible()
    alice.press(salt, "Delete")
    alice.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(salt).to_have_count(0)
    expect(alice.search("Why is the sea salty?").filter(has_text="salty")).to_have_count(0)
    alice.page.keyboard.press("Escape")

    alice.page.get_by_role("button", name="Log out").click()
    expect(alice.page.get_by_label("Username")).to_be_visible()
    expect(alice.page.get_by_text(_TIDES)).to_have_count(0)
    assert loads == []


def test_tabs_of_a_browser_share_one_login(alice: Visitor, gate: Gate, username: str) -> None:
    other_tab = alice.open()
    expect(other_tab.get_by_text("Live", exact=True)).to_be_visible()
    other_card = other_tab.locator("#prompts .card")
    with gate.closed():
        card = alice.submit(_TIDES)
        expect(other_card.locator(".status")).to_have_text("Answering")
        expect(other_card.locator(".prompt")).to_have_text(_TIDES)
        for tab in (alice.page, other_tab):
            expect(tab).to_have_title("(1) Promptwire")
    alice.expect_status(card, "Answered")
    expect(other_card.locator(".status")).to_have_text("Answered")
    expect(other_card.locator(".answer")).to_have_text(alice.answer(card).text_content())

    alice.press(alice.cards.first, "Delete")
    other_tab.get_by_role("button", name="Log out").click()
    for tab in (alice.page, other_tab):
        expect(tab.get_by_label("Username")).to_be_visible()
        expect(tab.get_by_text(_TIDES)).to_have_count(0)
    alice.enter("Log in", username)
    for tab in (alice.page, other_tab):
        expect(tab.get_by_text("Live", exact=True)).to_be_visible()
        expect(tab.locator("#prompts .prompt")).to_have_text(_TIDES)


def test_a_reload_keeps_the_user_logged_in(alice: Visitor) -> None:
    card = alice.submit(_TIDES)
    alice.expect_status(card, "Answered")
    alice.page.reload()
    alice.expect_live()
    expect(alice.cards).to_have_count(1)
    alice.expect_status(card, "Answered")


class TestLogin:
    def test_a_wrong_password_is_explained(self, visit: Callable[..., Visitor], url: str, username: str) -> None:
        alice = visit(url)
        alice.refusals.add(401)
        alice.enter("Log in", username)
        expect(alice.page.get_by_role("alert").first).to_have_text("Wrong username or password.")

    def test_a_taken_username_is_explained(self, visit: Callable[..., Visitor], url: str, username: str) -> None:
        RemoteUser(url, username)
        alice = visit(url)
        alice.refusals.add(409)
        alice.enter("Register", username)
        expect(alice.page.get_by_role("alert").first).to_contain_text("That username is taken.")

    def test_an_invalid_username_and_an_empty_prompt_are_explained(
        self, visit: Callable[..., Visitor], url: str, username: str
    ) -> None:
        alice = visit(url)
        alice.refusals.add(400)
        alice.enter("Register", "a b", "short")
        expect(alice.page.get_by_role("alert").first).to_have_text(
            'Usernames use letters, digits, "_", "." and "-" (up to 150). Passwords have 8 to 1024 characters.'
        )
        alice.register(username)
        message = alice.page.locator("#composer-error")
        alice.page.get_by_role("button", name="Submit").click()
        expect(message).to_have_text("Write a prompt first.")
        expect(alice.prompt_field).to_be_focused()
        alice.prompt_field.press_sequentially("a")
        expect(message).to_be_empty()

    def test_where_registration_is_closed_the_page_says_so(
        self, visit: Callable[..., Visitor], browser: Browser, settings: Settings, username: str
    ) -> None:
        with processes.api(Servers.changed(settings, registration=False)) as closed_url:
            alice = visit(closed_url)
            expect(alice.page.get_by_text("Registration is closed: ask an administrator")).to_be_visible()
            expect(alice.page.get_by_role("button", name="Register")).to_be_hidden()
            expect(alice.page.get_by_role("button", name="Log in")).to_be_visible()


def test_a_prompt_over_the_rate_limit_stays_and_can_be_submitted_later(
    visit: Callable[..., Visitor], settings: Settings, username: str
) -> None:
    with processes.api(Servers.changed(settings, prompt_rate_limit="1/hour")) as limited_url:
        alice = visit(limited_url)
        alice.refusals.add(429)
        alice.register(username)
        alice.page.clock.install()
        alice.submit("first")
        alice.prompt_field.fill("second")
        alice.page.keyboard.press("Control+Enter")
        button = alice.page.locator("#submit")
        expect(button).to_be_disabled()
        expect(button).to_contain_text("Wait")
        expect(alice.page.locator("#composer-error")).to_contain_text("You can submit again in")
        expect(alice.prompt_field).to_have_value("second")
        with redis.Redis.from_url(settings.redis_url.get_secret_value()) as client:
            client.flushdb()  # an hour passes on the server
        alice.page.clock.fast_forward(3_600_000)  # and in the browser
        expect(button).to_be_enabled()
        expect(button).to_have_text("Submit")
        button.click()
        expect(alice.card("second")).to_be_visible()
        alice.close()
