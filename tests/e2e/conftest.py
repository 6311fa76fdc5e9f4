"""One database and one API process for a whole module: starting them takes longer than a test. Users differ instead."""

from collections.abc import Iterator

import pytest

from shared.db.engine import Sessions, make_engine, make_sessions
from shared.settings import Settings
from tests.support import processes
from tests.support.servers import Servers
from worker.pipeline import Pipeline
from worker.services import make_services


@pytest.fixture(scope="module")
def settings(servers: Servers) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(name)


@pytest.fixture(scope="module")
def sessions(settings: Settings) -> Iterator[Sessions]:
    engine = make_engine(settings, application_name="test")
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def worker(settings: Settings) -> Iterator[Pipeline]:
    pipeline = make_services(settings).pipeline
    yield pipeline
    pipeline.sessions.kw["bind"].dispose()


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with processes.api(settings) as running:
        yield running
