"""`make screenshots`: take the pictures of the page and of the console for the documentation.

Both are shown light and dark, on a desktop and on a phone, with an answer that arrives.
"""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from shared.accounts import users
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.providers import GenerationRequest
from shared.settings import Settings
from tests.support import processes
from tests.support.browser import Gate, Visitor, chromium
from tests.support.client import PASSWORD
from tests.support.failed_prompts import add_failed
from tests.support.servers import ROOT, Servers

FOLDER = ROOT / "docs" / "images"
DESKTOP, PHONE = {"width": 1100, "height": 760}, {"width": 390, "height": 780}

_OUTAGE = "The provider could not be reached: connection refused."
_SLOW = "Explain why spring tides are higher than neap tides"
_CODE = "Write a Python function that recognises leap years"
_SEARCH = "tides of the ocean"
_ANSWERS = {
    "Why is the sea salty?": "Rain dissolves salts from rocks. Rivers carry them to the sea, and they stay there.",
    "Explain what causes ocean tides": (
        "The Moon's gravity is stronger on the near side of the Earth than on the far side. The sea rises on both:\n\n"
        "- on the near side, because it is pulled **towards** the Moon\n"
        "- on the far side, because it is pulled **less** than the Earth below it"
    ),
    _CODE: (
        "Every fourth year is a leap year, but only every fourth century year:\n\n```python\n"
        "def is_leap(year: int) -> bool:\n    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)\n```"
    ),
    _SLOW: (
        "Twice a month the Sun, the Earth and the Moon are in line. Their pulls add up, and the water rises higher."
    ),
}


class Answers:
    """Answers the prompts of the pictures. The last one stops in the middle of a sentence while the gate is closed."""

    name, max_batch_size = "pictures", 1

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        first, space, second = _ANSWERS[request.prompt_text].partition(" and the water")
        yield first
        while space and Path(os.environ["GATE"]).exists():
            time.sleep(0.05)
        yield space + second


def answers(_: Settings) -> Answers:
    return Answers()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    servers = Servers("screenshots")
    try:
        servers.start()
        with servers.database() as name, tempfile.TemporaryDirectory() as folder, chromium() as browser:
            settings = servers.settings(name, generator="tests.browser.screenshots:answers")
            gate = Path(folder) / "gate"
            command = processes.worker_command("worker", 2)
            environment = {"GATE": str(gate)} | processes.WORKER_ENVIRONMENT
            with processes.api(settings) as url, processes.process(command, settings, **environment):
                _take(browser, url, make_sessions(make_engine(settings, application_name="screenshots")), Gate(gate))
    finally:
        servers.stop()


def _take(browser: Browser, url: str, sessions: Sessions, gate: Gate) -> None:
    alice = Visitor(browser, url, viewport=DESKTOP, color_scheme="light")
    alice.register("alice")
    for text in list(_ANSWERS)[:-1]:
        alice.expect_status(alice.submit(text), "Answered")
    with gate.closed():
        arriving = alice.submit(_SLOW)
        expect(alice.answer(arriving)).to_contain_text("pulls add up")
        _save(alice.page, "desk")
        _take_console(browser, url, sessions)
    alice.expect_status(arriving, "Answered")
    alice.page.set_viewport_size(PHONE)
    alice.page.emulate_media(color_scheme="dark")
    expect(alice.search(_SEARCH).first).to_contain_text("ocean tides")
    _save(alice.page, "phone")
    alice.close()


def _take_console(browser: Browser, url: str, sessions: Sessions) -> None:
    """The console after an outage, when an operator retries the failed prompts."""
    with sessions.begin() as session:
        password_hash = users.hash_password(PASSWORD)
        ids = [users.create(session, name, password_hash).id for name in ("ben", "chandra", "dana")]
        users.create(session, "olga", password_hash, is_admin=True)
    for user_id, count in zip(ids, (412, 87, 3), strict=True):
        add_failed(sessions, user_id, count, error=_OUTAGE)
    add_failed(sessions, ids[0], 4, error="The answer has no valid JSON: it ends within a string.")
    operator = Visitor(browser, f"{url}/admin", viewport=DESKTOP, color_scheme="dark")
    page = operator.page
    operator.enter("Log in", "olga")
    expect(page.get_by_text("As of")).to_be_visible()
    expect(page.get_by_text("1 of 2 prefork")).to_be_visible()
    page.get_by_role("row").filter(has_text=_OUTAGE).get_by_role("button", name="Retry").click()
    expect(page.get_by_role("dialog")).to_contain_text("502 prompts")
    _save(page, "console")
    page.get_by_role("button", name="Back").click()
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme="light")
    _save(page, "console-phone")
    operator.close()


def _save(page: Page, name: str) -> None:
    page.screenshot(path=FOLDER / f"{name}.png", animations="disabled")


if __name__ == "__main__":
    main()
