"""The page when the server restarts, when tokens expire, and when a login ends."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from playwright.sync_api import Route, expect
from sqlalchemy import func, select, text

from shared.db.engine import Sessions, make_engine, make_sessions
from shared.db.models import Prompt, Status
from shared.settings import Settings
from tests.support.browser import Gate, Visitor
from tests.support.client import PASSWORD
from tests.support.processes import RemoteUser, RestartableApi
from tests.support.servers import SECRET, wait_until

pytestmark = pytest.mark.usefixtures("gate")

STORED_REFRESH_TOKEN = """async () => {
    const { createStore, get } = await import("/static/vendor/idb-keyval.js");
    return (await get("login", createStore("promptwire", "login"))).refresh;
}"""


@pytest.fixture(scope="module")
def sessions(settings: Settings):
    engine = make_engine(settings, application_name="test")
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture
def restartable_api(settings: Settings):
    api = RestartableApi(settings)
    yield api
    api.end()


def count_completed(sessions: Sessions) -> int:
    with sessions() as session:
        return session.scalar(select(func.count()).where(Prompt.status == Status.COMPLETED))


@pytest.mark.parametrize("is_stored", [True, False], ids=["events are stored", "events were deleted"])
def test_an_answer_from_while_the_server_was_down_is_shown_once(
    visit: Callable[..., Visitor],
    restartable_api: RestartableApi,
    gate: Gate,
    sessions: Sessions,
    username: str,
    is_stored: bool,
) -> None:
    alice = visit(restartable_api.url)
    alice.register(username)
    announcements = alice.announcements()
    before = count_completed(sessions)
    alice.is_unavailable = True
    with gate.closed():
        card = alice.submit("What is a tide?")
        alice.expect_status(card, "Answering")
        restartable_api.end()
        expect(alice.page.get_by_text("Not connected. Retrying in")).to_be_visible()
    wait_until(lambda: count_completed(sessions) == before + 1, what="the answer")
    if not is_stored:
        with sessions.begin() as session:
            session.execute(text("DELETE FROM feed"))
    alice.expect_status(card, "Answering")
    alice.prompt_field.fill("Written offline")
    alice.page.keyboard.press("Control+Enter")
    expect(alice.page.locator("#composer-error")).to_have_text("The server is unavailable at the moment.")

    restartable_api.start()
    alice.expect_live()
    expect(alice.page.locator("#composer-error")).to_be_empty()
    alice.expect_status(card, "Answered")
    expect(alice.answer(card)).to_contain_text("You asked “What is a tide?”")
    expect(alice.prompt_field).to_have_value("Written offline")
    alice.page.get_by_role("button", name="Submit", exact=True).click()
    alice.expect_status(alice.card("Written offline"), "Answered")
    expect(alice.cards).to_have_count(2)
    expect(alice.page.locator("#announcer")).to_contain_text("Written offline")
    assert len([announcement for announcement in announcements() if "You asked" in announcement]) == 1
    alice.close()


def test_delays_between_attempts_grow_and_the_user_can_retry_now(
    visit: Callable[..., Visitor], restartable_api: RestartableApi, username: str
) -> None:
    alice = visit(restartable_api.url)
    alice.register(username)
    alice.page.clock.install()
    alice.is_unavailable = True
    waiting = alice.page.get_by_text("Not connected. Retrying in")
    with alice.page.expect_event("console"):  # the error of the failed attempt
        restartable_api.end()
    expect(waiting).to_be_visible()
    alice.page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
    for _ in range(6):
        with alice.page.expect_event("console"):
            alice.page.clock.fast_forward(20_000)
        expect(waiting).to_be_visible()
    assert int(re.search(r"\d+", waiting.text_content())[0]) >= 10

    restartable_api.start()
    expect(waiting).to_be_visible()  # because the page's clock is paused
    alice.page.get_by_role("button", name="Try now").click()
    alice.expect_live()
    alice.close()


def shorten_token(route: Route) -> None:
    """Replace the access token in the response to a login by one that is valid for three seconds."""
    response = route.fetch()
    pair = response.json()
    claims = jwt.decode(pair["access"], SECRET, algorithms=["HS256"])
    pair["access"] = jwt.encode(claims | {"exp": int(time.time()) + 3}, SECRET)
    route.fulfill(response=response, json=pair)


def test_an_expired_access_token_is_refreshed_without_notice(
    visit: Callable[..., Visitor], url: str, username: str
) -> None:
    alice = visit(url)
    alice.refusals.add(401)
    sockets: list[Any] = []
    alice.page.on("websocket", lambda socket: sockets.append(socket))
    alice.page.route("**/login/", shorten_token)
    alice.register(username)
    card = alice.submit("What is a tide?")
    alice.prompt_field.fill("being written")
    with alice.page.expect_event("websocket", timeout=20_000):
        pass
    alice.expect_live()
    assert "since=" in sockets[-1].url
    alice.expect_status(card, "Answered")
    expect(alice.prompt_field).to_have_value("being written")
    alice.page.keyboard.press("Control+Enter")
    alice.expect_status(alice.card("being written"), "Answered")
    expect(alice.cards).to_have_count(2)


def test_after_an_ended_login_and_a_new_one_the_page_is_as_it_was(alice: Visitor, url: str, username: str):
    alice.refusals.add(401)
    card = alice.submit("What is a tide?")
    alice.expect_status(card, "Answered")
    alice.prompt_field.fill("being written")
    refresh_token = alice.page.evaluate(STORED_REFRESH_TOKEN)
    httpx.post(f"{url}/auth/logout/", json={"refresh": refresh_token}).raise_for_status()

    expect(alice.page.get_by_role("alert").first).to_have_text("Your login has expired. Log in again to continue.")
    expect(alice.page.get_by_label("Username")).to_have_value(username)
    RemoteUser(url, username, is_new=False).submit("Submitted elsewhere")
    alice.page.get_by_label("Password").fill(PASSWORD)
    alice.page.keyboard.press("Enter")
    alice.expect_live()
    expect(alice.prompt_field).to_have_value("being written")
    expect(card).to_be_visible()
    expect(alice.card("Submitted elsewhere")).to_be_visible()


def test_the_next_user_of_the_tab_sees_nothing_of_the_previous_one(alice: Visitor, username: str) -> None:
    alice.submit("What is a tide?")
    alice.prompt_field.fill("being written")
    alice.page.get_by_role("button", name="Log out").click()
    alice.register(f"other-{username}")
    expect(alice.page.get_by_text("Nothing here yet.", exact=False)).to_be_visible()
    expect(alice.prompt_field).to_have_value("")
    expect(alice.cards).to_have_count(0)


def test_a_duplicated_tab_does_not_end_the_login_of_the_original(alice: Visitor) -> None:
    with alice.page.expect_popup() as opening:
        alice.page.evaluate("void window.open(location.href)")
    duplicate = opening.value
    for page in (duplicate, alice.page, duplicate):
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        page.reload()
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
