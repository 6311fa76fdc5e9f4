"""API processes on databases of their own. Starting them takes longer than a test, so tests share them.

Modules that need nothing special share one API; their tests use different users. A module with settings or a worker of
its own overrides the fixture `settings`, and `url` is then an API with those.
"""

from collections.abc import Iterator

import pytest
from sqlalchemy import delete

from shared.db.engine import Sessions, make_engine, make_sessions
from shared.db.models import UNFINISHED, Prompt
from shared.messaging.redis import make_redis
from shared.settings import Settings
from tests.support import processes
from tests.support.servers import Servers
from worker.pipeline import Pipeline
from worker.services import make_services


@pytest.fixture(scope="session")
def shared_settings(servers: Servers) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(name)


@pytest.fixture(scope="session")
def shared_url(shared_settings: Settings) -> Iterator[str]:
    with processes.api(shared_settings) as running:
        yield running


@pytest.fixture(scope="module")
def own_settings(servers: Servers) -> Iterator[Settings]:
    """Settings with a database for this module alone, so that its workers have no prompts of other modules."""
    with servers.database() as name:
        yield servers.settings(name)


@pytest.fixture(scope="module")
def settings(shared_settings: Settings) -> Settings:
    return shared_settings


@pytest.fixture(scope="module")
def url(request: pytest.FixtureRequest, settings: Settings, shared_settings: Settings) -> Iterator[str]:
    if settings is shared_settings:
        yield request.getfixturevalue("shared_url")
    else:
        with processes.api(settings) as running:
            yield running


@pytest.fixture(scope="module")
def sessions(settings: Settings) -> Iterator[Sessions]:
    engine = make_engine(settings, application_name="test")
    yield make_sessions(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def worker(settings: Settings) -> Iterator[Pipeline]:
    """A worker in this process.

    Prompts that other modules have left unfinished are deleted, or it would take those. So is the text that is left of
    prompts with the same ids in other databases, or a stream would begin with it.
    """
    pipeline = make_services(settings).pipeline
    with make_redis(settings) as redis:
        for key in redis.scan_iter("promptwire:text:*"):
            redis.delete(key)
    with pipeline.autocommit_engine.connect() as connection:
        connection.execute(delete(Prompt).where(Prompt.status.in_(UNFINISHED)))
    yield pipeline
    pipeline.sessions.kw["bind"].dispose()
