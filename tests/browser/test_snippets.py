"""The browser's part of `docs/api.md`, run as it stands there by a page of another origin."""

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from playwright.sync_api import Browser

from shared.settings import Settings
from tests.support import processes
from tests.support.client import PASSWORD
from tests.support.processes import RemoteUser
from tests.support.servers import ROOT, Servers, wait_until

SNIPPETS = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)


class _EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<!doctype html><link rel="icon" href="data:,">')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    """Another web server here, such as a front end's development server. (Chromium keeps a page that comes from
    elsewhere, or from no address at all, from asking this machine.)"""
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage) as server:
        Thread(target=server.serve_forever).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def settings(servers: Servers, origin: str) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(name, simulated_delay=0.5, allowed_origins=(origin,))


def test_a_page_of_another_origin_submits_streams_and_listens(
    browser: Browser, url: str, settings: Settings, origin: str
) -> None:
    alice = RemoteUser(url, "alice")
    module = "\n".join(SNIPPETS).replace("http://127.0.0.1:8000", url).replace("the password", PASSWORD)
    logged: list[str] = []
    complaints: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: logged.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(origin)
    with processes.worker(settings):
        page.add_script_tag(type="module", content=module)

        def is_done() -> bool:
            page.wait_for_timeout(50)  # in which playwright delivers what the console has
            return complaints != [] or any(line.startswith("2 ") for line in logged)

        wait_until(is_done, 30, "the answer over the socket")
    page.close()
    assert complaints == []
    streamed, pushed = (alice.show(prompt_id)["response_text"] for prompt_id in (1, 2))
    *growing, ended, last = logged
    texts = [line.removeprefix("so far: ") for line in growing]
    assert len(texts) > 1
    assert all(later.startswith(earlier) for earlier, later in zip(texts, [*texts[1:], streamed], strict=True))
    assert texts[-1] == streamed
    assert (ended, last) == (f"completed {streamed}", f"2 {pushed}")
