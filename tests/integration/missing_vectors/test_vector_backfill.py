"""Vectors of prompts that were answered while the embedder failed: workers add each once, or give it up."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from api.services import Services
from shared.db.engine import Sessions
from shared.errors import ProviderError
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.search import missing_vectors
from shared.settings import Settings
from tests.support import processes
from tests.support.client import ApiUser
from tests.support.embedders import UNAVAILABLE, FlakyEmbedder, Worker, make_due
from tests.support.missing_vectors import RUST, TIDES, answer_without_vector, changes, fetch, find, vectors
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from tests.support.vectors import add_completed
from worker.maintenance.reaper import Reaper
from worker.services import make_services


def test_a_backfilled_vector_is_found_although_segments_cover_the_number_of_its_completion(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, settings: Settings, servers, sessions: Sessions
) -> None:
    add_completed(sessions, alice.id, [f"number {i}" for i in range(200)])
    (prompt_id,) = answer_without_vector(alice, worker, embedder, TIDES)
    for i in range(100):
        alice.submit(f"later {i}")
    worker.process(100)
    sealing = make_services(servers.changed(settings, seal_from_vectors=256))
    assert sealing.maintenance.seal(alice.id) == 1
    make_due(sessions)
    assert worker.embed_due() == 1
    assert find(alice, TIDES) == ([prompt_id], None)
    sealing.pipeline.sessions.kw["bind"].dispose()


def test_a_running_worker_adds_missing_vectors_by_itself(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, settings: Settings, servers, sessions: Sessions
) -> None:
    (prompt_id,) = answer_without_vector(alice, worker, embedder, TIDES)
    with processes.worker(servers.changed(settings, reaper_seconds=0.2), processes=1):
        wait_until(lambda: vectors(sessions) == [prompt_id])


def test_a_prompt_deleted_before_its_backfill_leaves_nothing(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, sessions: Sessions
) -> None:
    gone, kept = answer_without_vector(alice, worker, embedder, TIDES, RUST)
    alice.delete(f"/prompts/{gone}/")
    embedder.during = lambda: alice.delete(f"/prompts/{kept}/")  # while it is being embedded
    assert worker.embed_due() == 0
    assert fetch(sessions, "SELECT * FROM vector_log") == []
    assert find(alice, TIDES) == ([], None)
    assert fetch(sessions, "SELECT vectors_missing FROM users") == [(False,)]
    assert changes(sessions, alice) == ["completed", "completed", "deleted", "deleted"]


def test_a_deleted_prompt_is_not_found_by_its_backfilled_vector(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, sessions: Sessions
) -> None:
    (prompt_id,) = answer_without_vector(alice, worker, embedder, TIDES)
    worker.embed_due()
    assert find(alice, TIDES) == ([prompt_id], None)
    alice.delete(f"/prompts/{prompt_id}/")
    assert find(alice, TIDES) == ([], None)
    assert vectors(sessions) == []


def test_a_vector_that_two_processes_have_made_is_stored_once(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, sessions: Sessions
) -> None:
    (prompt_id,) = answer_without_vector(alice, worker, embedder, TIDES)
    embedder.during = lambda: find(alice, TIDES)  # a search, while the worker embeds
    assert worker.embed_due() == 0
    assert vectors(sessions) == [prompt_id]
    assert changes(sessions, alice) == ["completed", "embedded"]


def test_several_workers_and_searches_at_once_store_each_vector_once(
    alice: ApiUser, bob: ApiUser, make_flaky_worker, embedder: FlakyEmbedder, sessions: Sessions, monkeypatch
) -> None:
    monkeypatch.setattr("worker.backfill_task.BATCH", 5)
    workers = [make_flaky_worker() for _ in range(3)]
    ids = [
        prompt_id
        for user in (alice, bob, alice)
        for prompt_id in answer_without_vector(user, workers[0], embedder, *(f"number {i}" for i in range(10)))
    ]
    with ThreadPoolExecutor(5) as threads:
        tasks = [threads.submit(worker.embed_due) for worker in workers]
        tasks += [threads.submit(find, user, "number 3") for user in (alice, bob)]
        for task in tasks:
            task.result(MAX_WAIT_SECONDS)
    workers[0].embed_due()
    assert vectors(sessions) == sorted(ids)
    assert changes(sessions, alice).count("embedded") == 20
    assert changes(sessions, bob).count("embedded") == 10
    assert fetch(sessions, "SELECT DISTINCT vectors_missing FROM users") == [(False,)]


def test_a_worker_that_must_stop_leaves_its_prompts_to_the_next(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, sessions: Sessions
) -> None:
    answer_without_vector(alice, worker, embedder, TIDES)
    embedder.during = sys.exit
    with pytest.raises(SystemExit):
        worker.embed_due()
    assert fetch(sessions, "SELECT vector_due_at < now() + interval '10 s' FROM prompts") == [(True,)]


def test_the_reaper_requests_a_backfill_while_vectors_are_due(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, settings, sessions: Sessions, services: Services
) -> None:
    class Recording(Queue):
        requests = 0

        def request_backfill(self) -> bool:
            self.requests += 1
            return True

    queue = Recording(make_celery(settings), make_redis(settings))
    reaper = Reaper(settings, sessions, queue, services.announcer)
    reaper.round()
    assert queue.requests == 0
    answer_without_vector(alice, worker, embedder, TIDES)
    reaper.round()
    assert queue.requests == 1
    worker.embed_due()
    reaper.round()
    assert queue.requests == 1


def test_backfill_requests_do_not_pile_up_while_workers_are_busy(services: Services) -> None:
    assert [services.queue.request_backfill() for _ in range(3)] == [True, False, False]


def test_an_outage_gives_up_no_text_however_long_it_lasts(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, sessions: Sessions
) -> None:
    (prompt_id,) = answer_without_vector(alice, worker, embedder, TIDES)
    embedder.raised = ProviderError("The model was not found.", retryable=False)
    for _ in range(2 * missing_vectors.MAX_REFUSALS):
        assert worker.embed_due() == 0
        worker.end_pauses()
    embedder.recover()
    assert worker.embed_due() == 1
    assert vectors(sessions) == [prompt_id]


def test_the_task_does_not_call_a_paused_embedder(alice: ApiUser, worker: Worker, embedder: FlakyEmbedder) -> None:
    answer_without_vector(alice, worker, embedder, TIDES)
    embedder.raised = UNAVAILABLE
    worker.embed_due()
    calls = len(embedder.calls)
    make_due(worker.sessions)
    worker.embed_due()
    assert len(embedder.calls) == calls


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), UNAVAILABLE, ProviderError("silent"), ProviderError("no", retryable=False)]
)
def test_a_text_that_the_embedder_refuses_is_given_up_and_costs_no_other_its_vector(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, sessions: Sessions, error: Exception
) -> None:
    ids = answer_without_vector(alice, worker, embedder, "one", "bad", "two")
    embedder.refused = {"bad": error}
    assert worker.embed_due() == 2
    embedder.calls.clear()
    find(alice, "two")
    assert embedder.calls == [["two"]]  # searches do not try it again
    for _ in range(missing_vectors.MAX_REFUSALS):
        make_due(sessions)
        worker.embed_due()
    calls = len(embedder.calls)
    make_due(sessions)
    assert worker.embed_due() == 0
    assert len(embedder.calls) == calls
    assert vectors(sessions) == [ids[0], ids[2]]
    assert fetch(sessions, "SELECT id, vector_failures FROM prompts WHERE vector_due_at = 'infinity'") == [(ids[1], 5)]
    assert find(alice, "two") == ([ids[2]], "1")
    metrics = alice.get("/metrics").text
    assert 'promptwire_vectors_missing{state="given_up"} 1.0' in metrics
    assert 'promptwire_vectors_missing{state="due"} 0.0' in metrics
