"""`make screenshots`: the two pictures of the README and the tutorial, of a page that is used."""

from playwright.sync_api import expect

from tests.support import processes
from tests.support.browser import Visitor, chromium
from tests.support.servers import ROOT, Servers

FOLDER = ROOT / "docs" / "images"

_EARLIER = ("Describe how a sundial is made", "Why is the sea salty?", "Explain what causes ocean tides")
_NOW = "Explain why spring tides are higher than neap tides"
_SEARCH = "tides of the ocean"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    servers = Servers("screenshots")
    try:
        servers.start()
        with servers.database() as name:
            # Slow enough for a picture of an answer that arrives.
            settings = servers.settings(name, simulated_delay=6)
            with processes.api(settings) as url, processes.worker(settings, processes=4), chromium() as browser:
                alice = Visitor(browser, url, viewport={"width": 1100, "height": 760}, color_scheme="light")
                alice.register("alice")
                for text in _EARLIER:
                    alice.submit(text)
                for text in _EARLIER:
                    alice.expect_status(alice.card(text), "Answered")
                card = alice.submit(_NOW)
                expect(alice.answer(card)).to_contain_text("then look at its parts")
                alice.page.screenshot(path=FOLDER / "desk.png", animations="disabled")
                alice.expect_status(card, "Answered")
                alice.page.set_viewport_size({"width": 390, "height": 780})
                alice.page.emulate_media(color_scheme="dark")
                expect(alice.search(_SEARCH)).to_have_count(2)
                alice.page.screenshot(path=FOLDER / "phone.png", animations="disabled")
                alice.close()
    finally:
        servers.stop()


if __name__ == "__main__":
    main()
