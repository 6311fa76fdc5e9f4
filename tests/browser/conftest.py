"""A Chromium, an API and a worker for each module; a person with an empty browser for each test."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Browser

from shared.settings import Settings
from tests.support import browser as browsers
from tests.support import processes
from tests.support.browser import Visitor
from tests.support.servers import Servers


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if browsers.CHROMIUM is None:
        pytest.skip(browsers.MISSING)
    with browsers.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def settings(servers: Servers) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(name, generator="tests.support.providers:gated")


@pytest.fixture(scope="module")
def url(browser: Browser, settings: Settings) -> Iterator[str]:
    with processes.api(settings) as running:
        yield running


class Gate:
    """Closed, it lets the beginning of an answer arrive, and the rest when it is open again."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        self._file.touch()
        try:
            yield
        finally:
            self._file.unlink()


@pytest.fixture(scope="module")
def gate(browser: Browser, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    """That of a worker which runs."""
    file = tmp_path_factory.mktemp("gate") / "closed"
    command = processes.worker_command("worker", 2)
    with processes.process(command, settings, GATE=str(file), **processes.WORKER_ENVIRONMENT):
        yield Gate(file)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Opens the page at a URL. At the end, nobody's browser may have complained of anything."""
    visitors: list[Visitor] = []

    def make(url: str, **options: object) -> Visitor:
        visitors.append(Visitor(browser, url, **options))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.close()
    assert [complaint for visitor in visitors for complaint in visitor.complaints] == []


@pytest.fixture
def username() -> str:
    return f"user-{uuid4().hex[:8]}"


@pytest.fixture
def alice(visit: Callable[..., Visitor], url: str, username: str) -> Visitor:
    """Somebody who has just registered."""
    visitor = visit(url)
    visitor.register(username)
    return visitor
