"""One Chromium, API and worker for all tests of this folder; a new user and an empty browser context for each test.

Their scope is the package, not the session: a worker that kept running would take messages from the queues of other
tests, and Playwright's event loop would block theirs.
"""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from uuid import uuid4

import pytest
from playwright.sync_api import Browser

from shared.settings import Settings
from tests.support import browser as browsers
from tests.support import processes
from tests.support.browser import Gate, Visitor
from tests.support.servers import Servers


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if browsers.CHROMIUM is None:
        pytest.skip(browsers.MISSING)
    with browsers.chromium() as running:
        yield running


class _EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<!doctype html><link rel="icon" href="data:,">')

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="package")
def origin() -> Iterator[str]:
    """Another web server with an empty page, such as the development server of a front end.

    Chromium does not let a page from another machine, or without an address, send requests to this machine.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="package")
def settings(servers: Servers, origin: str) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(name, generator="tests.support.providers:gated", allowed_origins=(origin,))


@pytest.fixture(scope="package")
def url(browser: Browser, settings: Settings) -> Iterator[str]:
    with processes.api(settings) as running:
        yield running


@pytest.fixture(scope="package")
def gate(browser: Browser, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """The gate of a running worker. The worker starts while the API does."""
    file = tmp_path_factory.mktemp("gate") / "closed"
    command = processes.worker_command("worker", 2)
    with processes.process(command, settings, GATE=str(file), **processes.WORKER_ENVIRONMENT):
        yield Gate(file)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Opens the page at a URL in a new browser context. At the end, no context may have complaints."""
    visitors: list[Visitor] = []

    def open_page(url: str, **options: object) -> Visitor:
        visitors.append(Visitor(browser, url, **options))
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.close()
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


@pytest.fixture
def username() -> str:
    return f"user-{uuid4().hex[:8]}"


@pytest.fixture
def alice(visit: Callable[..., Visitor], url: str, username: str) -> Visitor:
    """A visitor who has just registered."""
    visitor = visit(url)
    visitor.register(username)
    return visitor
