"""The purge of a deleted account: nothing of it is left, wherever the service may have kept it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from flask import Flask
from sqlalchemy import Engine, text

from api.services import Services
from shared.accounts import deletion, purge
from shared.accounts.audit import COMMAND_LINE
from shared.db.engine import Sessions
from shared.search import replica_check
from shared.search.faiss.segment_storage import FilePayloadStore
from shared.search.index_lock import index_lock
from shared.search.pgvector.hnsw import HnswBuilder
from shared.settings import Settings
from tests.support import lifecycle, traces
from tests.support.client import PASSWORD, ApiUser
from tests.support.footprint import COUNT, MARKER, NAME, Footprint
from tests.support.servers import Servers, wait_until
from tests.support.vectors import EACH_STORE, add_completed
from worker import account_purge
from worker.maintenance.purger import Purger
from worker.services import Services as WorkerServices
from worker.services import make_services as make_worker_services
from worker.tasks import register


@pytest.fixture
def segments(tmp_path: Path) -> Path:
    return tmp_path / "segments"


@pytest.fixture
def settings(servers: Servers, settings: Settings, segments: Path) -> Settings:
    return servers.changed(settings, segments_url=segments.as_uri(), seal_from_vectors=256, feed_check_seconds=0.5)


@pytest.fixture
def worker_services(settings: Settings) -> Iterator[WorkerServices]:
    made = make_worker_services(settings)
    yield made
    made.pipeline.sessions.kw["bind"].dispose()


@pytest.fixture
def user(app: Flask) -> ApiUser:
    return ApiUser(app, NAME)


def delete(user: ApiUser, password: str = PASSWORD):
    return user.call("DELETE", "/account/", json={"password": password})


@pytest.fixture
def let_time_pass(sessions: Sessions) -> Callable[[], None]:
    """Let the accounts have been deleted some time ago."""

    def move() -> None:
        with sessions.begin() as session:
            session.execute(text("UPDATE users SET deleted_at = deleted_at - CAST(:by AS interval)"), {"by": "1 hour"})

    return move


@EACH_STORE
def test_no_trace_of_a_deleted_account_is_left_anywhere(
    vector_store: str,
    user: ApiUser,
    bob: ApiUser,
    services: Services,
    worker_services: WorkerServices,
    sessions: Sessions,
    engine: Engine,
    settings: Settings,
    segments: Path,
    let_time_pass: Callable[[], None],
) -> None:
    prompt_of_bob = bob.submit("What is a tide?")
    footprint = Footprint(user, worker_services, services, sessions)
    worker_services.maintenance.seal(user.id)
    if vector_store == "pgvector":
        assert HnswBuilder(sessions, worker_services.pipeline.embedders, hnsw_from=10).seal(user.id) == 1
    footprint.load_replicas()
    redis_url = settings.redis_url.get_secret_value()
    before = traces.in_tables(engine, MARKER)
    assert {
        "prompts",
        "prompt_words",
        "feed",
        "idempotency_keys",
        "api_keys",
        "webhooks",
        "users",
        "token_families",
    } <= set(before)
    assert traces.in_redis(redis_url, MARKER)  # a partial text
    assert {"vector_log", "word_index", "login_blocks", "idempotency_keys"} <= traces.rows_of(engine, user.id).keys()
    assert _deliveries(engine) == COUNT - 2
    files = len(list(segments.glob("*/*")))
    assert (len(footprint.replicas()), files) == ((2, 1) if vector_store == "faiss" else (0, 0))

    assert delete(user).status_code == 204
    assert traces.in_redis(redis_url, MARKER) == []
    worker_services.account_purge.purge(user.id)
    services.store.drop_deleted()

    assert traces.in_tables(engine, MARKER) == []
    assert set(traces.rows_of(engine, user.id)) <= {"api_keys", "token_families", "audit"}
    assert traces.in_redis(redis_url, MARKER) == []
    assert list(segments.glob("*")) == []
    assert footprint.replicas() == []
    assert _deliveries(engine) == 0

    let_time_pass()
    assert worker_services.account_purge.purge(user.id)
    assert set(traces.rows_of(engine, user.id)) == {"audit"}
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT username FROM users")).all() == ["bob"]
        assert connection.scalar(text("SELECT count(*) FROM pg_class WHERE relname LIKE 'pgvector_hnsw%'")) == 0
    assert bob.show(prompt_of_bob)["prompt_text"] == "What is a tide?"


def _deliveries(engine: Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM webhook_deliveries"))


@pytest.fixture
def deleted(user: ApiUser, sessions: Sessions) -> ApiUser:
    """A user with ten prompts and their vectors, whose account is deleted and not purged yet."""
    add_completed(sessions, user.id, [f"{MARKER} {i}" for i in range(10)])
    with sessions.begin() as session:
        deletion.delete(session, user.id, COMMAND_LINE)
    return user


def test_the_deletion_sends_a_message_whose_task_purges_the_account(
    user: ApiUser,
    services: Services,
    worker_services: WorkerServices,
    engine: Engine,
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_completed(sessions, user.id, [MARKER])
    sent: list[tuple] = []
    monkeypatch.setattr(services.queue, "_send", lambda *message: sent.append(message))
    delete(user)
    celery = Celery(set_as_current=False)
    register(celery, lambda: worker_services)
    ((task, user_id),) = sent
    celery.tasks[task]("not an id")
    assert "prompts" in traces.rows_of(engine, user.id)
    celery.tasks[task](user_id)
    assert "prompts" not in traces.rows_of(engine, user.id)


class KilledError(Exception):
    """The process is killed."""


def test_a_purge_that_was_killed_in_the_middle_goes_on_where_it_was(
    deleted: ApiUser, worker_services: WorkerServices, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "BATCH_PROMPTS", 3)
    kept = worker_services.account_purge._partial_text.delete

    def be_killed(_: object) -> None:
        raise KilledError

    monkeypatch.setattr(worker_services.account_purge._partial_text, "delete", be_killed)
    with pytest.raises(KilledError):
        worker_services.account_purge.purge(deleted.id)
    assert traces.rows_of(engine, deleted.id)["prompts"] == 7
    monkeypatch.setattr(worker_services.account_purge._partial_text, "delete", kept)
    worker_services.account_purge.purge(deleted.id)
    assert traces.in_tables(engine, MARKER) == []


def test_a_long_purge_is_done_in_slices_each_of_which_requests_the_next(
    deleted: ApiUser, worker_services: WorkerServices, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "BATCH_PROMPTS", 3)
    monkeypatch.setattr(account_purge, "SLICE_SECONDS", -1.0)
    requested: list[int] = []
    worker_services.account_purge._request = requested.append
    assert not worker_services.account_purge.purge(deleted.id)
    assert requested == [deleted.id]
    assert traces.rows_of(engine, deleted.id)["prompts"] == 7


def test_a_purge_whose_message_was_lost_is_requested_again_by_the_maintenance(
    deleted: ApiUser, bob: ApiUser, services: Services, sessions: Sessions
) -> None:
    requested: list[int] = []
    services.queue.request_purge = requested.append
    purger = Purger(sessions, services.queue)
    purger.round()
    assert requested == []
    with sessions.begin() as session:
        session.execute(
            text("UPDATE users SET deleted_at = now() - interval '61 seconds' WHERE deleted_at IS NOT NULL")
        )
    purger.round()
    assert requested == [deleted.id]


def test_the_purge_of_an_account_that_is_not_deleted_does_nothing(
    user: ApiUser, worker_services: WorkerServices, engine: Engine
) -> None:
    """As after a restore of a backup, when a message is older than the database."""
    user.submit(MARKER)
    before = traces.rows_of(engine, user.id)
    assert not worker_services.account_purge.purge(user.id)
    assert traces.rows_of(engine, user.id) == before


def test_a_purge_does_nothing_while_another_process_works_on_the_vectors_of_the_account(
    deleted: ApiUser, worker_services: WorkerServices, engine: Engine, sessions: Sessions
) -> None:
    before = traces.rows_of(engine, deleted.id)
    with index_lock(sessions, deleted.id):
        assert not worker_services.account_purge.purge(deleted.id)
    assert traces.rows_of(engine, deleted.id) == before


def test_rows_that_were_stored_after_a_purge_are_deleted_by_the_next(
    deleted: ApiUser,
    worker_services: WorkerServices,
    engine: Engine,
    sessions: Sessions,
    let_time_pass: Callable[[], None],
) -> None:
    """A submission that was authenticated just before the deletion may be stored afterwards."""
    worker_services.account_purge.purge(deleted.id)
    with sessions.begin() as session:
        lifecycle.submit(session, deleted.id, MARKER)
    worker_services.pipeline.process(1)
    assert traces.in_tables(engine, MARKER) == ["prompts"]
    let_time_pass()
    assert worker_services.account_purge.purge(deleted.id)
    assert traces.in_tables(engine, MARKER) == []
    assert traces.rows_of(engine, deleted.id).keys() == {"audit"}


def test_a_user_stays_until_no_file_of_a_segment_is_left(
    user: ApiUser,
    worker_services: WorkerServices,
    sessions: Sessions,
    engine: Engine,
    segments: Path,
    let_time_pass: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    add_completed(sessions, user.id, [f"{MARKER} {i}" for i in range(300)])
    worker_services.maintenance.seal(user.id)
    with sessions.begin() as session:
        deletion.delete(session, user.id, COMMAND_LINE)
    let_time_pass()

    def fail(*_: object) -> None:
        raise OSError("the bucket is unavailable")

    with monkeypatch.context() as patched:
        patched.setattr(FilePayloadStore, "delete", fail)
        assert not worker_services.account_purge.purge(user.id)
    assert traces.rows_of(engine, user.id).keys() == {"segments", "token_families", "audit"}
    assert len(list(segments.glob("*/*"))) == 1
    assert worker_services.account_purge.purge(user.id)
    assert list(segments.glob("*")) == []


def test_a_purge_that_was_killed_after_it_deleted_a_segments_file_is_completed_by_the_next(
    user: ApiUser,
    worker_services: WorkerServices,
    sessions: Sessions,
    segments: Path,
    let_time_pass: Callable[[], None],
) -> None:
    add_completed(sessions, user.id, [f"{MARKER} {i}" for i in range(300)])
    worker_services.maintenance.seal(user.id)
    with sessions.begin() as session:
        deletion.delete(session, user.id, COMMAND_LINE)
    for file in segments.glob("*/*"):
        file.unlink()
    let_time_pass()
    assert worker_services.account_purge.purge(user.id)


def test_a_file_whose_row_was_never_committed_is_deleted_with_its_user(
    deleted: ApiUser, bob: ApiUser, worker_services: WorkerServices, segments: Path
) -> None:
    """As after a worker was killed while it sealed a segment."""
    for each in (deleted, bob):
        (segments / str(each.id)).mkdir(parents=True)
        (segments / str(each.id) / "7-orphan.segment").write_text(MARKER)
    worker_services.account_purge.purge(deleted.id)
    assert [file.parent.name for file in traces.in_files(segments, MARKER)] == [str(bob.id)]


def test_each_process_drops_the_replicas_of_deleted_accounts_by_itself(
    user: ApiUser, bob: ApiUser, services: Services, sessions: Sessions
) -> None:
    for each in (user, bob):
        add_completed(sessions, each.id, ["a tide"])
        assert len(each.get("/prompts/similar/?prompt=tide").json) == 1
    with sessions.begin() as session:
        deletion.delete(session, user.id, COMMAND_LINE)
    stop = replica_check.start(services.store, 0.01)
    wait_until(lambda: list(services.store._slots) == [bob.id])
    stop.set()
