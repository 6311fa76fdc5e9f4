"""The page when the server goes and comes back, when tokens expire, and when a login ends."""

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
from tests.browser.conftest import Gate
from tests.support import processes
from tests.support.browser import Visitor
from tests.support.client import PASSWORD
from tests.support.processes import RemoteUser
from tests.support.servers import SECRET, wait_until

pytestmark = pytest.mark.usefixtures("gate")


@pytest.fixture(scope="module")
def sessions(settings: Settings):
    engine = make_engine(settings, application_name="test")
    yield make_sessions(engine)
    engine.dispose()


class Api:
    """The API on one port, which can be killed and started again."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._port = settings, processes.free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._running = processes.start(processes.API, self._settings, PORT=str(self._port), API_PROCESSES="1")
        wait_until(lambda: processes.answers(self.url), what="the API starting")

    def kill(self) -> None:
        processes.kill(self._running)


@pytest.fixture
def mortal(settings: Settings):
    api = Api(settings)
    api.start()
    yield api
    api.kill()


def completed(sessions: Sessions) -> int:
    with sessions() as session:
        return session.scalar(select(func.count()).where(Prompt.status == Status.COMPLETED))


def note_announcements(visitor: Visitor) -> Callable[[], list[str]]:
    """Keeps what those who listen are told. Returns what gives it."""
    visitor.page.evaluate(
        """() => {
            window.said = [];
            const announcer = document.getElementById("announcer");
            new MutationObserver(() => window.said.push(announcer.textContent)).observe(announcer, {childList: true});
        }"""
    )
    return lambda: visitor.page.evaluate("window.said")


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "too long ago for since"])
def test_what_finished_while_the_server_was_away_is_shown_once(
    visit: Callable[..., Visitor], mortal: Api, gate: Gate, sessions: Sessions, username: str, is_kept: bool
) -> None:
    alice = visit(mortal.url)
    alice.register(username)
    said = note_announcements(alice)
    before = completed(sessions)
    alice.is_unavailable = True
    with gate.closed():
        card = alice.submit("What is a tide?")
        alice.expect_status(card, "Answering")
        mortal.kill()
        expect(alice.page.get_by_text("Not connected, again in")).to_be_visible()
    wait_until(lambda: completed(sessions) == before + 1, what="the answer")
    if not is_kept:
        with sessions.begin() as session:
            session.execute(text("DELETE FROM feed"))
    alice.expect_status(card, "Answering")
    alice.prompt_field.fill("Written meanwhile")
    alice.page.keyboard.press("Control+Enter")
    expect(alice.page.locator("#composer-trouble")).to_have_text("The server cannot be reached at the moment.")

    mortal.start()
    alice.expect_live()
    alice.expect_status(card, "Answered")
    expect(alice.answer(card)).to_contain_text("You asked “What is a tide?”")
    expect(alice.prompt_field).to_have_value("Written meanwhile")
    alice.page.get_by_role("button", name="Submit", exact=True).click()
    alice.expect_status(alice.card("Written meanwhile"), "Answered")
    expect(alice.cards).to_have_count(2)
    assert len([words for words in said() if "You asked" in words]) == 1
    alice.close()


def test_pauses_between_attempts_grow_and_one_need_not_wait(
    visit: Callable[..., Visitor], mortal: Api, username: str
) -> None:
    alice = visit(mortal.url)
    alice.register(username)
    alice.page.clock.install()
    alice.is_unavailable = True
    waiting = alice.page.get_by_text("Not connected, again in")
    with alice.page.expect_event("console"):  # of the attempt that failed
        mortal.kill()
    expect(waiting).to_be_visible()
    alice.page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
    for _ in range(6):
        with alice.page.expect_event("console"):
            alice.page.clock.fast_forward(20_000)
        expect(waiting).to_be_visible()
    assert int(re.search(r"\d+", waiting.text_content())[0]) >= 10

    mortal.start()
    expect(waiting).to_be_visible()  # the page's clock stands still
    alice.page.get_by_role("button", name="Try now").click()
    alice.expect_live()
    alice.close()


def shortly(route: Route) -> None:
    """Passes a login on with an access token of the same login that is good for three seconds."""
    answer = route.fetch()
    pair = answer.json()
    claims = jwt.decode(pair["access"], SECRET, algorithms=["HS256"])
    pair["access"] = jwt.encode(claims | {"exp": int(time.time()) + 3}, SECRET)
    route.fulfill(response=answer, json=pair)


def test_an_access_token_that_expires_is_replaced_unnoticed(
    visit: Callable[..., Visitor], url: str, username: str
) -> None:
    alice = visit(url)
    alice.refusals.add(401)
    sockets: list[Any] = []
    alice.page.on("websocket", lambda socket: sockets.append(socket))
    alice.page.route("**/login/", shortly)
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


def test_when_the_login_has_ended_one_logs_in_again_and_finds_everything_as_it_was(
    alice: Visitor, url: str, username: str
):
    alice.refusals.add(401)
    card = alice.submit("What is a tide?")
    alice.expect_status(card, "Answered")
    alice.prompt_field.fill("being written")
    kept = alice.page.evaluate("JSON.parse(sessionStorage.getItem('promptwire.login')).refresh")
    httpx.post(f"{url}/auth/logout/", json={"refresh": kept}).raise_for_status()

    expect(alice.page.get_by_role("alert").first).to_have_text("Your login has ended. Log in again to go on.")
    expect(alice.page.get_by_label("Username")).to_have_value(username)
    RemoteUser(url, username, is_new=False).submit("Asked elsewhere")
    alice.page.get_by_label("Password").fill(PASSWORD)
    alice.page.keyboard.press("Enter")
    alice.expect_live()
    expect(alice.prompt_field).to_have_value("being written")
    expect(card).to_be_visible()
    expect(alice.card("Asked elsewhere")).to_be_visible()


def test_another_user_in_the_same_tab_sees_nothing_of_the_one_before(alice: Visitor, username: str) -> None:
    alice.submit("What is a tide?")
    alice.prompt_field.fill("being written")
    alice.page.get_by_role("button", name="Log out").click()
    alice.register(f"other-{username}")
    expect(alice.page.get_by_text("Nothing here yet.", exact=False)).to_be_visible()
    expect(alice.prompt_field).to_have_value("")
    expect(alice.cards).to_have_count(0)


def test_a_duplicated_tab_does_not_end_the_login_of_the_first(alice: Visitor) -> None:
    with alice.page.expect_popup() as opening:
        alice.page.evaluate("void window.open(location.href)")
    twin = opening.value
    for page in (twin, alice.page, twin):
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
        page.reload()
        expect(page.get_by_text("Live", exact=True)).to_be_visible()
