"""An API and workers whose embedder fails on demand."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from sqlalchemy import Engine

from api.services import Services
from shared.providers import Embedders
from shared.settings import Settings
from tests.support.embedders import FlakyEmbedder, Worker, app_with
from worker.services import make_services


@pytest.fixture
def embedder() -> FlakyEmbedder:
    return FlakyEmbedder()


@pytest.fixture
def app(settings: Settings, services: Services, autocommit_engine: Engine, embedder: FlakyEmbedder) -> Flask:
    """An application with that embedder."""
    return app_with(settings, services, autocommit_engine, Embedders(embedder))


@pytest.fixture
def make_flaky_worker(settings: Settings, embedder: FlakyEmbedder) -> Iterator[Callable[..., Worker]]:
    """Create workers with other embedders, or with changes of their pipeline."""
    made: list[Worker] = []

    def make(*embedders: object, **changes: object) -> Worker:
        used = Embedders(*(embedders or (embedder,)))
        made.append(Worker(make_services(settings), used, **changes))
        return made[-1]

    yield make
    for worker in made:
        worker.sessions.kw["bind"].dispose()


@pytest.fixture
def worker(make_flaky_worker: Callable[..., Worker]) -> Worker:
    return make_flaky_worker()
