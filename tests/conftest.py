"""Fixtures: real servers, an empty database for each test, and the application and a worker's pipeline on them."""

import functools
import gc
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import celery.utils.imports
import flask_openapi3.utils
import httpx
import pytest
import structlog
from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule
from xdist.scheduler import LoadFileScheduling

import shared.db.engine
from api.app import create_app
from api.services import Services, make_services
from shared.accounts import users
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.settings import Settings
from tests.support.client import ApiUser, serving
from tests.support.servers import MAX_WAIT_SECONDS, Servers, running_servers
from tests.support.user_queue import UserQueue
from worker.pipeline import Pipeline
from worker.services import make_services as make_worker_services

_PRODUCTION_HASHER = users._hasher


def pytest_configure() -> None:
    # A shell that runs this in the background ignores SIGINT, and so would all processes that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # No test uses TLS. Loading all authorities' certificates takes 20 ms in each HTTP client and each command.
    os.environ.pop("SSL_CERT_FILE", None)
    os.environ["SSL_CERT_DIR"] = os.devnull
    # A machine that stalls for longer than httpx's default of 5 s makes a test slower, not red.
    for kind in ("connect", "read", "write", "pool"):
        setattr(httpx._config.DEFAULT_TIMEOUT_CONFIG, kind, MAX_WAIT_SECONDS)
    # Print tracebacks plainly: structlog's default renders them with all local variables, for seconds each.
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its level, and put the longest files first."""
    for item in items:
        item.add_marker(_level(item))
    items.sort(key=_order)


def pytest_collection_finish() -> None:
    """Keep garbage collections, a tenth of the computing, from looking at modules and tests, which never become it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)


# The longest files start first, so that all processes have work until the end; those of the browser count as two. Then
# by level, the slowest first.
_LONGEST = (
    "test_client", "test_stack", "test_openapi_fuzz", "test_doctor", "test_sockets", "test_openai_sdks",
    "test_production", "test_workers", "test_providers", "test_interrupted_run",
)  # fmt: skip
_BROWSER = "tests/browser/"
_LEVELS = ("faults", "e2e", "browser", "infra", "integration", "unit")


def _level(item: pytest.Item) -> str:
    """The name of the folder of `tests` that it is in, directly or deeper."""
    return next(folder.name for folder in item.path.parents if folder.name in _LEVELS)


def _order(item: pytest.Item) -> tuple[int, int]:
    name, level = item.path.stem, _level(item)
    if level == "browser":
        return -1, 0
    return (
        _LONGEST.index(name) if name in _LONGEST and level != "unit" else len(_LONGEST),
        _LEVELS.index(level),
    )


class _FileScheduling(LoadFileScheduling):
    """Gives a process whole files, and half of the files that share a browser, an API and a worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return f"{_BROWSER}{len(file) % 2}" if file.startswith(_BROWSER) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _FileScheduling | None:
    return _FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's settings out."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session", autouse=True)
def _cheap_passwords() -> None:
    """Hash passwords in microseconds in this process. Most tests have a user, and a hash takes 20 ms."""
    users._hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(scope="session", autouse=True)
def _scan_entry_points_once() -> None:
    """Keep each new Celery application from reading the metadata of all installed packages, for 5 ms."""
    celery.utils.imports.entry_points = functools.cache(celery.utils.imports.entry_points)


@pytest.fixture(scope="session", autouse=True)
def _compile_routes_once() -> None:
    """Have each new application take the code of its routes' URL builders from the first one: half of its making."""
    compile_builder, compiled = Rule._compile_builder, {}

    def compile_once(rule: Rule, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        if rule.defaults:
            return compile_builder(rule, append_unknown)
        key = tuple(rule._trace), frozenset(rule.arguments), append_unknown
        if key not in compiled:
            compiled[key] = compile_builder(rule, append_unknown)
        return compiled[key]

    Rule._compile_builder = compile_once


@pytest.fixture(scope="session", autouse=True)
def _read_annotations_once() -> None:
    """Have each new application take the types of its views' arguments from the first one: a third of its making."""
    get_type_hints, read = flask_openapi3.utils.get_type_hints, {}

    def read_once(view: Callable[..., object]) -> dict[str, Any]:
        annotations = view.__annotations__  # the same dict for a method of each instance
        if id(annotations) not in read:
            read[id(annotations)] = annotations, get_type_hints(view)
        return read[id(annotations)][1]

    flask_openapi3.utils.get_type_hints = read_once


@pytest.fixture(scope="session", autouse=True)
def _compile_statements_once() -> None:
    """Have all engines share the SQL of their statements, which takes as long as executing them. They are all alike."""
    create, cache = shared.db.engine.create_engine, LRUCache(1_000)
    PGDialect_psycopg2.__eq__ = lambda self, other: type(self) is type(other)  # it is a part of the cache's keys
    PGDialect_psycopg2.__hash__ = lambda self: hash(type(self))

    def create_with_cache(*args: Any, **options: Any) -> Engine:
        engine = create(*args, **options)
        engine._compiled_cache = cache
        return engine

    shared.db.engine.create_engine = create_with_cache


@pytest.fixture
def production_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords as in production."""
    monkeypatch.setattr(users, "_hasher", _PRODUCTION_HASHER)


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    with running_servers() as running:
        yield running


@pytest.fixture
def vector_store() -> str:
    """The value of VECTOR_STORE. Tests that hold for both stores are parametrized over it."""
    return "faiss"


@pytest.fixture
def database(servers: Servers, vector_store: str) -> str:
    with servers.redis() as client:
        client.flushall()
    return servers.empty_database(vector_store)


@pytest.fixture
def settings(servers: Servers, database: str, vector_store: str) -> Settings:
    return servers.settings(database, vector_store=vector_store)


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    made = make_engine(settings, application_name="test")
    yield made
    made.dispose()


@pytest.fixture
def sessions(engine: Engine) -> Sessions:
    return make_sessions(engine)


@pytest.fixture
def autocommit_engine(settings: Settings) -> Iterator[Engine]:
    """An engine in autocommit mode, which vector stores need."""
    made = make_engine(settings, application_name="test", autocommit=True)
    yield made
    made.dispose()


@pytest.fixture
def make_app(settings: Settings) -> Iterator[Callable[..., tuple[Flask, Services]]]:
    """Create applications with changed settings."""
    made: list[Services] = []

    def make(**changes: object) -> tuple[Flask, Services]:
        changed = settings.model_copy(update=changes)
        services = make_services(changed)
        services.relay.start()
        made.append(services)
        return create_app(changed, services), services

    yield make
    for services in made:
        services.relay.shut_down()
        services.sessions.kw["bind"].dispose()


@pytest.fixture
def app_and_services(make_app: Callable[..., tuple[Flask, Services]]) -> tuple[Flask, Services]:
    return make_app()


@pytest.fixture
def app(app_and_services: tuple[Flask, Services]) -> Flask:
    return app_and_services[0]


@pytest.fixture
def app_url(app: Flask) -> Iterator[str]:
    with serving(app) as url:
        yield url


@pytest.fixture
def services(app_and_services: tuple[Flask, Services]) -> Services:
    return app_and_services[1]


@pytest.fixture
def alice(app: Flask) -> ApiUser:
    return ApiUser(app, "alice")


@pytest.fixture
def bob(app: Flask) -> ApiUser:
    return ApiUser(app, "bob")


@pytest.fixture(scope="module")
def shared_app(servers: Servers) -> Iterator[Flask]:
    """An application for all tests of a module, whose database is not emptied between them."""
    with servers.database() as name:
        settings = servers.settings(name)
        services = make_services(settings)
        services.relay.start()
        yield create_app(settings, services)
        services.relay.shut_down()
        services.sessions.kw["bind"].dispose()


@pytest.fixture(scope="module")
def shared_alice(shared_app: Flask) -> ApiUser:
    return ApiUser(shared_app, "alice")


@pytest.fixture
def queue(sessions: Sessions) -> UserQueue:
    return UserQueue(sessions)


@pytest.fixture
def worker(settings: Settings) -> Iterator[Pipeline]:
    pipeline = make_worker_services(settings).pipeline
    yield pipeline
    pipeline.sessions.kw["bind"].dispose()
