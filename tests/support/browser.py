"""The page in a real Chromium, and a visitor who uses it."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect, sync_playwright

from tests.support.client import PASSWORD
from tests.support.servers import MAX_WAIT_SECONDS

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "No Chromium found. Install one (Debian, Ubuntu: apt-get install chromium)."
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

expect.set_options(timeout=MAX_WAIT_SECONDS * 1000)

PHONE = {"width": 360, "height": 780}
DESKTOP = {"width": 1280, "height": 800}


def assert_no_violations(page: Page, *, only_contrast: bool = False) -> None:
    """Check what is shown by axe's rules, or, where only the colours are others than before, by that of contrast."""
    rules = {"runOnly": ["color-contrast"]} if only_contrast else {}
    # Otherwise axe also describes all elements that pass, which takes as long as the rules.
    results = Axe().run(page, options={"resultTypes": ["violations"], **rules})
    assert results.violations_count == 0, results.generate_report()


def assert_accessible(page: Page) -> None:
    """Check a view on a phone and on a desktop, light and dark: axe has no complaint, and nothing is too wide.

    The page must be opened with `reduced_motion="reduce"`, because axe reads colours that still change.
    """
    for viewport in (PHONE, DESKTOP):
        page.set_viewport_size(viewport)
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme)
            assert_no_violations(page, only_contrast=scheme == "dark")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run a headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS, timeout=MAX_WAIT_SECONDS * 1000)
        yield browser
        browser.close()


class Gate:
    """Holds the worker's answers back: while it is closed, only the first words of an answer arrive."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        self._file.touch()
        try:
            yield
        finally:
            self._file.unlink()


class Visitor:
    """A user of the page, in a browser context of its own.

    `complaints` has the errors of scripts and of the console, among them violations of the page's policy. The console
    also reports each error response: those with a status in `refusals` are left out, and while `is_unavailable` is
    set, those about a server that does not answer. On a busy machine the page may give up a socket that takes long.
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
        """Open the page in another tab of the same context."""
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
        """Submit a prompt and return its card."""
        self.prompt_field.fill(text)
        self.page.keyboard.press("Control+Enter")
        expect(self.prompt_field).to_have_value("")
        return self.card(text)

    def search(self, text: str) -> Locator:
        """Search for a text and return the cards of the results."""
        self.page.get_by_role("searchbox").fill(text)
        return self.page.locator("#found .card")

    def press(self, card: Locator, button: str) -> None:
        card.get_by_role("button", name=re.compile(f"^{button}")).click()

    def announcements(self) -> Callable[[], list[str]]:
        """Record the texts that screen readers announce from now on. Returns a function that returns them."""
        self.page.evaluate(
            """() => {
                window.announcements = [];
                const announcer = document.getElementById("announcer");
                const record = () => window.announcements.push(announcer.textContent);
                new MutationObserver(record).observe(announcer, { childList: true });
            }"""
        )
        return lambda: self.page.evaluate("window.announcements")

    @property
    def prompt_field(self) -> Locator:
        return self.page.get_by_label("Prompt", exact=True)

    @property
    def cards(self) -> Locator:
        """The cards of the list of prompts."""
        return self.page.locator("#prompts .card")

    def card(self, text: str) -> Locator:
        """The card in the list whose prompt is this text."""
        return self.cards.filter(has=self.page.get_by_text(text, exact=True))

    def answer(self, card: Locator) -> Locator:
        return card.locator(".answer")

    def expect_status(self, card: Locator, status: str) -> None:
        expect(card.locator(".status")).to_have_text(status)

    def _on_console(self, message: ConsoleMessage) -> None:
        text = message.text
        refusal = re.search(r"(?:Failed to load resource: .* status of|Unexpected response code:) (\d+)", text)
        if message.type not in ("error", "warning") or (refusal and int(refusal[1]) in self.refusals):
            return
        if self.is_unavailable and "ERR_" in text:
            return
        if "closed before the connection is established" in text:
            return
        self.complaints.append(text)
