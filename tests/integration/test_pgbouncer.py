"""Everything works through PgBouncer in transaction mode. By default it refuses the settings of a session."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from uuid import uuid4

import psycopg2
import pytest
from flask import Flask
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from infra.doctor import Severity, stores
from shared.db import migrations
from shared.db.engine import Sessions, long_snapshot, make_engine, make_sessions
from shared.search.index_lock import index_lock
from shared.search.pgvector.hnsw import HnswBuilder
from shared.settings import Settings
from tests.support import pgbouncer
from tests.support.client import PASSWORD, ApiUser, assert_problem
from tests.support.pgbouncer import SESSIONS, PgBouncer
from tests.support.servers import Servers, wait_until
from worker.services import make_services


@pytest.fixture(scope="module")
def pooler(servers: Servers) -> Iterator[PgBouncer]:
    with pgbouncer.running(servers) as running:
        yield running


@pytest.fixture
def settings(pooler: PgBouncer, servers: Servers, database: str, vector_store: str) -> Settings:
    return servers.settings(database, database_url=pooler.url(database), vector_store=vector_store)


@pytest.fixture
def make_limited(settings: Settings) -> Iterator[Callable[[bool], Engine]]:
    """Make an engine whose statements may take 0.2 s."""
    with contextlib.ExitStack() as stack:

        def make(autocommit: bool) -> Engine:
            engine = make_engine(settings, application_name="test", statement_timeout_ms=200, autocommit=autocommit)
            stack.callback(engine.dispose)
            return engine

        yield make


def test_prompts_are_submitted_answered_and_found(alice: ApiUser, app: Flask, worker) -> None:
    keyed = {"Idempotency-Key": uuid4().hex}
    body = {"prompt_text": "What is a tide?"}
    first = alice.post("/prompts/", json=body, headers=keyed).json["id"]
    assert alice.post("/prompts/", json=body, headers=keyed).json["id"] == first
    others = [alice.submit(f"prompt {i}") for i in range(5)]
    cancelled = alice.submit("never mind")
    assert alice.post(f"/prompts/{cancelled}/cancel/").status_code == 200
    completed = [each for _ in range(6) for each in worker.process(1).completed]
    assert sorted(completed) == [first, *others]
    found = alice.get("/prompts/similar/?prompt=What is a tide?").json
    assert found[0]["id"] == first
    tokens = app.test_client().post("/login/", json={"username": "alice", "password": PASSWORD}).json
    assert app.test_client().post("/auth/refresh/", json={"refresh": tokens["refresh"]}).status_code == 200
    assert alice.get("/readyz").json["checks"] == {"postgres": "ok", "redis": "ok"}


@pytest.mark.parametrize("autocommit", [False, True])
def test_the_server_cancels_slow_statements(make_limited, autocommit: bool) -> None:
    with make_limited(autocommit).connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(OperationalError, match="statement timeout"):
            connection.execute(text("SELECT pg_sleep(60)"))


def test_limits_hold_where_the_pooler_ignores_the_settings_of_a_session(servers: Servers, database: str) -> None:
    with pgbouncer.running(servers, ignored_parameters="options", name="ignoring") as ignoring:
        settings = servers.settings(database, database_url=ignoring.url(database))
        engine = make_engine(settings, application_name="test", statement_timeout_ms=1_234)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT current_setting('statement_timeout')")) == "1234ms"
        engine.dispose()


@pytest.mark.parametrize("autocommit", [False, True])
def test_times_are_in_utc_whatever_the_time_zone_of_the_server(
    pooler: PgBouncer, servers: Servers, autocommit: bool
) -> None:
    """In an eastern one the last day of the year 9999, until which an API key may be valid, is in the year 10000."""
    with servers.copy() as name:
        servers._execute(f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Tokyo'")
        settings = servers.settings(name, database_url=pooler.url(name))
        engine = make_engine(settings, application_name="test", autocommit=autocommit)
        with engine.connect() as connection:
            last = connection.scalar(text("SELECT CAST('9999-12-31T23:59:59Z' AS timestamptz)"))
        engine.dispose()
    assert last == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_a_long_snapshot_has_no_time_limit(make_limited) -> None:
    engine = make_limited(autocommit=False)
    with long_snapshot(make_sessions(engine)) as connection:
        assert connection.scalar(text("SELECT current_setting('statement_timeout')")) == "0"
    with engine.connect() as connection:  # the next transaction has
        assert connection.scalar(text("SELECT current_setting('statement_timeout')")) == "200ms"


def test_no_setting_is_left_in_the_sessions_of_the_server(
    settings: Settings, make_limited, alice: ApiUser, worker
) -> None:
    alice.submit()
    worker.process(1)
    for autocommit in (False, True):
        with make_limited(autocommit).begin() as connection:
            connection.execute(text("SELECT 1"))
    url = settings.database_url.get_secret_value()
    with contextlib.ExitStack() as stack:
        for _ in range(SESSIONS):  # their transactions stay open, so each has a session of its own
            connection = stack.enter_context(contextlib.closing(psycopg2.connect(url)))
            cursor = stack.enter_context(connection.cursor())
            cursor.execute("SELECT current_setting('statement_timeout'), count(*) FROM pg_prepared_statements")
            assert cursor.fetchall() == [("0", 0)]


def test_a_users_index_lock_belongs_to_one_process_until_it_is_released(sessions: Sessions) -> None:
    with index_lock(sessions, 1) as acquired:
        assert acquired
        for _ in range(2 * SESSIONS):  # in whichever session of the server
            with index_lock(sessions, 1) as again, index_lock(sessions, 2) as other:
                assert (again, other) == (False, True)
    with sessions() as other_transaction:
        other_transaction.execute(text("SELECT 1"))  # in the session that had the lock: it was used last
        with index_lock(sessions, 1) as acquired:
            assert acquired


def test_an_empty_database_is_migrated(pooler: PgBouncer, servers: Servers) -> None:
    with servers.copy() as name:
        engine = make_engine(servers.settings(name, database_url=pooler.url(name)), application_name="test")
        migrations.upgrade(engine)
        with engine.connect() as connection:
            assert migrations.is_current(connection)
        engine.dispose()


def test_after_a_failover_to_a_writable_server_requests_go_on(servers: Servers, alice: ApiUser) -> None:
    alice.submit()
    with servers.read_only():
        assert_problem(alice.post("/prompts/", json={"prompt_text": "Hi"}), 503)
    wait_until(lambda: alice.post("/prompts/", json={"prompt_text": "Hi"}).status_code == 202, what="recovering")


def test_the_doctor_says_that_there_is_a_pooler(settings: Settings) -> None:
    found = [each for each in stores.postgres(settings) if "a pooler in transaction mode" in each.problem]
    assert [each.severity for each in found] == [Severity.BEWARE]


@pytest.mark.parametrize("vector_store", ["pgvector"])
def test_an_index_is_built_without_a_time_limit(settings: Settings, alice: ApiUser) -> None:
    services = make_services(settings)
    sessions = services.pipeline.sessions
    for i in range(3):
        alice.submit(f"prompt {i}")
        services.pipeline.process(1)
    embedders = services.pipeline.embedders
    assert HnswBuilder(sessions, embedders, hnsw_from=3).seal(alice.id) == 1
    assert [match["prompt_text"] for match in alice.get("/prompts/similar/?prompt=prompt 1&limit=1").json] == [
        "prompt 1"
    ]
    sessions.kw["bind"].dispose()
