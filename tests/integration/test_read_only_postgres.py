"""Postgres that answers, but accepts no writes: after a failover, with a full disk, or by its settings."""

import contextlib
import dataclasses
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import psycopg2
import pytest
from flask import Flask
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError, InternalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from structlog.testing import capture_logs

from infra.doctor import stores
from shared.db.connector import READ_ONLY_PAUSE_SECONDS
from shared.db.engine import cause, is_unavailable, make_engine, make_sessions
from shared.errors import ProviderError
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.settings import Settings
from tests.support.client import ApiUser, assert_problem
from tests.support.providers import Script
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until
from tests.support.standby import standby
from worker.maintenance.reaper import Reaper
from worker.pipeline import Pipeline


@contextlib.contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Act in a thread while the block runs."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join(MAX_WAIT_SECONDS)


# psycopg2 has a class for each SQLSTATE; which of them are OperationalErrors is its own decision.
@pytest.mark.parametrize(
    ("state", "unavailable", "dropped"),
    [
        ("08006", True, False),  # connection_failure
        ("08P01", True, False),  # protocol_violation: PgBouncer's errors
        ("25006", True, True),  # read_only_sql_transaction: also "cannot execute … during recovery"
        ("25P02", True, True),  # in_failed_sql_transaction
        ("25P03", True, False),  # idle_in_transaction_session_timeout: the server closes the connection
        ("25P04", True, False),  # transaction_timeout
        ("40001", True, False),  # serialization_failure
        ("40P01", True, False),  # deadlock_detected
        ("53100", True, False),  # disk_full
        ("53200", True, False),  # out_of_memory
        ("53300", True, False),  # too_many_connections
        ("55000", True, False),  # object_not_in_prerequisite_state: "recovery is in progress"
        ("55P03", True, False),  # lock_not_available
        ("57014", True, False),  # query_canceled: statement_timeout
        ("57P01", True, False),  # admin_shutdown
        ("57P02", True, False),  # crash_shutdown
        ("57P03", True, False),  # cannot_connect_now: it starts, or stops
        ("57P05", True, False),  # idle_session_timeout
        ("58000", True, False),  # system_error
        ("58030", True, False),  # io_error
        ("22001", False, False),  # string_data_right_truncation
        ("23505", False, False),  # unique_violation
        ("42P01", False, False),  # undefined_table
        ("54000", False, False),  # program_limit_exceeded: a row that no index can hold
        ("P0001", False, False),  # raise_exception
        ("XX001", False, False),  # data_corrupted: a person has to look at it
    ],
)
def test_each_sqlstate_means_that_postgres_is_unavailable_or_that_it_works(
    autocommit_engine: Engine, state: str, unavailable: bool, dropped: bool
) -> None:
    with pytest.raises(DBAPIError) as raised, autocommit_engine.connect() as connection:
        connection.exec_driver_sql(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")
    assert raised.value.orig.pgcode == state
    assert (is_unavailable(raised.value), raised.value.connection_invalidated) == (unavailable, dropped)


def test_an_exhausted_pool_means_unavailable_and_an_error_in_the_code_does_not() -> None:
    assert is_unavailable(PoolTimeoutError())
    assert not is_unavailable(ValueError())


def test_the_log_names_the_error_and_the_server_that_could_not_be_reached(servers: Servers) -> None:
    engine = make_engine(servers.settings("missing"), application_name="test")
    with pytest.raises(DBAPIError) as raised:
        engine.connect()
    assert 'database "missing" does not exist' in cause(raised.value)
    assert cause(InternalError("", {}, psycopg2.errors.ReadOnlySqlTransaction())) == "ReadOnlySqlTransaction"


def test_while_postgres_is_read_only_every_write_is_503_and_later_all_works(
    servers: Servers, alice: ApiUser, app: Flask
) -> None:
    alice.submit()  # the pool has sessions that could write
    with servers.read_only():
        for _ in range(3):
            started = time.monotonic()
            response = alice.post("/prompts/", json={"prompt_text": "Hi"})
            assert_problem(response, 503)
            assert int(response.headers["Retry-After"]) > 0
            assert time.monotonic() - started < 3
        login = {"username": "alice", "password": "correct horse battery"}
        assert_problem(alice.post("/login/", json=login), 503)
        wait_until(lambda: alice.get("/readyz").status_code == 503, what="readiness")
        assert alice.get("/readyz").json["checks"] == {"postgres": "PostgreSQL is read-only", "redis": "ok"}
    wait_until(lambda: alice.get("/readyz").status_code == 200, what="recovering")
    assert alice.post("/prompts/", json={"prompt_text": "Hi"}).status_code == 202
    assert len(alice.get("/prompts/").json) == 2


def test_after_an_error_because_of_a_read_only_server_no_session_that_is_as_old_is_used(
    servers: Servers, settings: Settings
) -> None:
    engine = make_engine(settings, application_name="test")
    with engine.connect() as first, engine.connect() as second:
        old = {each.scalar(text("SELECT pg_backend_pid()")) for each in (first, second)}
    with servers.read_only(), pytest.raises(InternalError), engine.begin() as connection:
        connection.execute(text("DELETE FROM prompts"))
    with engine.connect() as first, engine.connect() as second:
        assert old.isdisjoint(each.scalar(text("SELECT pg_backend_pid()")) for each in (first, second))
    engine.dispose()


def test_a_read_only_server_is_not_connected_to_again_and_again(
    servers: Servers, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(settings, application_name="test")
    connects: list[object] = []
    connect = psycopg2.connect
    monkeypatch.setattr(psycopg2, "connect", lambda *args, **kwargs: connects.append(1) or connect(*args, **kwargs))
    clock = [time.monotonic()]
    monkeypatch.setattr("shared.db.connector.time.monotonic", lambda: clock[0])
    with servers.read_only():
        connects.clear()
        for _ in range(5):
            with pytest.raises(DBAPIError, match="read-only"):
                engine.connect()
        assert len(connects) == 1
    clock[0] += READ_ONLY_PAUSE_SECONDS
    engine.connect().close()
    engine.dispose()


def test_an_answer_is_kept_while_postgres_is_read_only_and_the_attempt_counts_once(
    servers: Servers, worker: Pipeline, alice: ApiUser
) -> None:
    prompt_id = alice.submit()
    with contextlib.ExitStack() as stack, capture_logs() as logs:

        def fail_over() -> None:
            stack.enter_context(servers.read_only())

        def recover() -> None:
            wait_until(lambda: any(line["event"] == "postgres unavailable, answers kept" for line in logs))
            stack.close()

        script = Script("one", between_chunks=fail_over)
        with meanwhile(recover):
            result = dataclasses.replace(worker, generator=script).process(1)
    assert (result.completed, script.calls) == ([prompt_id], 1)
    assert sum(line["event"] == "postgres unavailable, answers kept" for line in logs) == 1
    assert not [line for line in logs if line.get("exc_info")]
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["attempt"], shown["response_text"]) == ("completed", 1, "one ")


def test_an_attempt_that_a_database_error_interrupts_does_not_count(worker: Pipeline, alice: ApiUser) -> None:
    """As when the history of a prompt is read while the server shuts down."""
    prompt_id = alice.submit()
    error = DBAPIError.instance("", {}, psycopg2.errors.AdminShutdown(), psycopg2.Error)
    for _ in range(7):  # more than MAX_ATTEMPTS
        assert dataclasses.replace(worker, generator=Script(error)).process(1).completed == []
    assert alice.show(prompt_id)["status"] == "queued"
    assert worker.process(1).completed == [prompt_id]


def test_the_maintenance_of_a_read_only_server_fails_in_a_line_and_goes_on_later(
    servers: Servers, settings: Settings, alice: ApiUser, worker: Pipeline
) -> None:
    prompt_id = alice.submit()
    dataclasses.replace(
        worker, generator=Script(ProviderError("Not now.")), retry_backoff=worker.retry_backoff * 0
    ).process(1)
    engine = make_engine(settings, application_name="test")
    redis = make_redis(settings)
    reaper = Reaper(settings, make_sessions(engine), Queue(make_celery(settings), redis), Announcer(redis))
    with servers.read_only(), capture_logs() as logs:
        reaper.round()
    assert {line["log_level"] for line in logs} == {"warning"}
    assert not [line for line in logs if line.get("exc_info")]

    def is_queued() -> bool:
        reaper.round()
        return alice.show(prompt_id)["position"] == 1

    wait_until(is_queued, what="the next attempt")
    engine.dispose()
    redis.close()


@pytest.mark.parametrize("accepted", ["read-write", "any"])
def test_the_doctor_names_a_read_only_server(servers: Servers, settings: Settings, accepted: str) -> None:
    url = f"{settings.database_url.get_secret_value()}?target_session_attrs={accepted}"
    with servers.read_only():
        problems = [found.problem for found in stores.postgres(servers.changed(settings, database_url=url))]
    assert any("PostgreSQL is read-only" in problem for problem in problems)
    assert not any("read-only" in found.problem for found in stores.postgres(settings))


class TestSeveralHosts:
    """DATABASE_URL names several servers, one of which accepts writes."""

    def several(self, settings: Settings, *ports: int) -> Settings:
        url = settings.database_url.get_secret_value()
        before, _, after = url.partition("@")
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        changed = f"{before}@{hosts}/{after.partition('/')[2]}?target_session_attrs=read-write"
        return Servers.changed(settings, database_url=changed)

    def test_the_first_host_that_can_be_reached_is_used(self, servers: Servers, settings: Settings) -> None:
        engine = make_engine(self.several(settings, 9, servers.postgres.port), application_name="test")
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM prompts"))
        engine.dispose()

    def test_with_a_wait_callback_the_next_attempt_starts_at_the_next_host(
        self, servers: Servers, settings: Settings, request: pytest.FixtureRequest
    ) -> None:
        """An API process has one, with a time limit that ends the attempt before libpq tries the second host."""

        def wait(connection: psycopg2.extensions.connection) -> None:
            while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
                reads = [connection] if state == psycopg2.extensions.POLL_READ else []
                writes = [connection] if state == psycopg2.extensions.POLL_WRITE else []
                limit = 0.3 if connection.info.port == silent.getsockname()[1] else None
                if not any(select.select(reads, writes, [], limit)):
                    raise psycopg2.OperationalError("no answer")

        request.addfinalizer(lambda: psycopg2.extensions.set_wait_callback(None))
        with socket.create_server(("127.0.0.1", 0)) as silent:
            changed = self.several(settings, silent.getsockname()[1], servers.postgres.port)
            psycopg2.extensions.set_wait_callback(wait)
            engine = make_engine(changed, application_name="test")
            with pytest.raises(DBAPIError, match="no answer"):
                engine.connect()
            with engine.connect() as connection:
                assert connection.scalar(text("SELECT 1")) == 1
            engine.dispose()

    def test_after_a_failover_to_a_standby_everything_goes_on(
        self, servers: Servers, settings: Settings, make_app: Callable[..., tuple[Flask, object]]
    ) -> None:
        with standby(servers) as other:
            changed = self.several(settings, other.port, servers.postgres.port)  # the standby refuses writes
            app, _ = make_app(database_url=changed.database_url)
            alice = ApiUser(app, "alice")
            before = alice.submit("before")
            other.catch_up(servers.postgres)
            with servers.postgres_process.killed():
                assert_problem(alice.post("/prompts/", json={"prompt_text": "between"}), 503)
                other.promote()

                def accepts() -> bool:
                    return alice.post("/prompts/", json={"prompt_text": "after"}).status_code == 202

                wait_until(accepts, what="the new primary")
                texts = [each["prompt_text"] for each in alice.get("/prompts/").json]
                assert texts == ["after", "before"]
                assert alice.show(before)["status"] == "queued"
