"""The playground in a real Chromium, and a person who uses it."""

import contextlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.support.client import PASSWORD
from tests.support.servers import MAX_WAIT_SECONDS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "There is no Chromium here: install one (Debian, Ubuntu: apt-get install chromium)."
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

expect.set_options(timeout=MAX_WAIT_SECONDS * 1000)

PHONE = {"width": 360, "height": 780}


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield browser
        browser.close()


class Visitor:
    """Somebody at the page, in a tab of their own.

    What the browser complains of is in `complaints`: errors of scripts and of the console, violations of the page's
    policy. The console also has each answer that is a refusal: those whose status is in `refusals` are left out, and if
    `is_unavailable`, what it says of a server that does not answer.
    """

    def __init__(self, browser: Browser, url: str, **options: Any) -> None:
        self.refusals: set[int] = set()
        self.is_unavailable = False
        self.complaints: list[str] = []
        self.url = url
        self._context = browser.new_context(**options)
        self._context.set_default_timeout(MAX_WAIT_SECONDS * 1000)
        self.page = self.open()

    def open(self) -> Page:
        """A tab of the same browser, with the page."""
        page = self._context.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.url)
        return page

    def close(self) -> None:
        self._context.close()

    def register(self, username: str) -> None:
        self.enter("Register", username)
        self.expect_live()

    def enter(self, button: str, username: str, password: str = PASSWORD) -> None:
        self.page.get_by_label("Username").fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name=button).click()

    def expect_live(self) -> None:
        expect(self.page.get_by_text("Live", exact=True)).to_be_visible()

    def submit(self, text: str) -> Locator:
        """Submits a prompt, and returns its card."""
        self.prompt_field.fill(text)
        self.page.keyboard.press("Control+Enter")
        expect(self.prompt_field).to_have_value("")
        return self.card(text)

    def search(self, text: str) -> Locator:
        """Types it into the search, and returns the cards that are found."""
        self.page.get_by_role("searchbox").fill(text)
        return self.page.locator("#found .card")

    def press(self, card: Locator, button: str) -> None:
        card.get_by_role("button", name=re.compile(f"^{button}")).click()

    @property
    def prompt_field(self) -> Locator:
        return self.page.get_by_label("Prompt", exact=True)

    @property
    def cards(self) -> Locator:
        """The cards of the list."""
        return self.page.locator("#prompts .card")

    def card(self, text: str) -> Locator:
        """The card of the list whose prompt is this text."""
        return self.cards.filter(has=self.page.get_by_text(text, exact=True))

    def answer(self, card: Locator) -> Locator:
        return card.locator(".answer")

    def expect_status(self, card: Locator, status: str) -> None:
        expect(card.locator(".status")).to_have_text(status)

    def _on_console(self, message: ConsoleMessage) -> None:
        text = message.text
        refusal = re.search(r"Failed to load resource: .* status of (\d+)", text)
        if message.type not in ("error", "warning") or (refusal and int(refusal[1]) in self.refusals):
            return
        if self.is_unavailable and "ERR_" in text:
            return
        self.complaints.append(text)
