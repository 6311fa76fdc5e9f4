"""Prompts that are answered while the embedder fails: answered at once, found as soon as it works again."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
from click.testing import CliRunner
from flask import Flask
from sqlalchemy import Engine, text

from api.services import Services
from api.services import make_services as make_api_services
from shared.db.engine import Sessions
from shared.errors import ProviderError
from shared.messaging.queue import Queue
from shared.prompts import feed
from shared.providers import Embedders
from shared.providers.hashing import HashingEmbedder
from shared.search import late_embedding, missing_vectors
from shared.settings import Settings
from tests.support import processes
from tests.support.client import ApiUser, assert_problem
from tests.support.embedders import AWAY, Moody, Worker, app_with, make_due
from tests.support.providers import Backwards, Counting, Script
from tests.support.servers import environment_of, wait_until
from tests.support.vectors import EACH_STORE, add_completed
from worker.maintenance.reaper import Reaper
from worker.reindex.__main__ import main as reindex_command
from worker.services import make_services

TIDES, RUST = "What causes ocean tides?", "Write a haiku about rust"


@pytest.fixture
def moody() -> Moody:
    return Moody()


@pytest.fixture
def app(settings: Settings, services: Services, autocommit_engine: Engine, moody: Moody) -> Flask:
    return app_with(settings, services, autocommit_engine, Embedders(moody))


@pytest.fixture
def services(settings: Settings) -> Iterator[Services]:
    made = make_api_services(settings)
    yield made
    made.sessions.kw["bind"].dispose()


@pytest.fixture
def make_worker(settings: Settings, moody: Moody) -> Iterator:
    made: list[Worker] = []

    def make(*embedders: object, **changes: object) -> Worker:
        used = Embedders(*(embedders or (moody,)))
        made.append(Worker(make_services(settings), used, **changes))
        return made[-1]

    yield make
    for worker in made:
        worker.sessions.kw["bind"].dispose()


@pytest.fixture
def worker(make_worker) -> Worker:
    return make_worker()


def answer_without_vector(user: ApiUser, worker: Worker, moody: Moody, *texts: str) -> list[int]:
    """Have prompts answered while the embedder is down; then it works again."""
    ids = [user.submit(each, websocket=True) for each in texts]
    moody.raised = AWAY
    worker.process(len(ids))
    moody.recover()
    worker.pauses_end()
    return ids


def find(user: ApiUser, query: str, **parameters: object) -> tuple[list[int], str | None]:
    """Search. Returns the ids of the prompts that are practically equal, and how many could not be compared."""
    response = user.get("/prompts/similar/", query_string={"prompt": query, "max_score": 1e-3, **parameters})
    assert response.status_code == 200, response.text
    return [each["id"] for each in response.json], response.headers.get("Missing-Vectors")


def fetch(sessions: Sessions, sql: str) -> list[tuple]:
    with sessions() as session:
        return [tuple(row) for row in session.execute(text(sql))]


def vectors(sessions: Sessions) -> list[int]:
    """The prompts of all vectors."""
    return [row[0] for row in fetch(sessions, "SELECT prompt_id FROM vector_log WHERE vector IS NOT NULL ORDER BY 1")]


def changes(sessions: Sessions, user: ApiUser) -> list[str]:
    """The feed of a user, checked to have no gap."""
    rows = fetch(sessions, f"SELECT seq, change FROM feed WHERE user_id = {user.id} ORDER BY seq")  # noqa: S608
    assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
    assert fetch(sessions, f"SELECT seq FROM users WHERE id = {user.id}") == [(len(rows),)]  # noqa: S608
    return [change for _, change in rows]


class TestAnswering:
    @pytest.mark.parametrize(
        ("raised", "returned"),
        [
            (AWAY, None),
            (ProviderError("The provider sent nothing for too long."), None),
            (ProviderError("no", retryable=False), None),
            (ZeroDivisionError("a bug"), None),
            (None, np.full((1, 384), np.nan)),
            (None, np.ones((1, 3))),
            (None, np.ones((0, 384))),
            (None, np.zeros((1, 384))),
            (None, ["no", "vector"]),
        ],
    )
    def test_a_prompt_is_answered_although_its_embedder_fails(
        self, alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions, raised: Exception, returned: object
    ) -> None:
        prompt_id = alice.submit(TIDES, websocket=True)
        moody.raised, moody.returned = raised, returned
        worker.process()
        shown = alice.show(prompt_id)
        assert (shown["status"], shown["attempt"], shown["error"]) == ("completed", 1, None)
        with sessions() as session:
            assert [each.seq for each in feed.read(session, alice.id, 0).finished] == [1]
        assert vectors(sessions) == []
        moody.recover()
        assert find(alice, TIDES) == ([prompt_id], None)

    def test_without_a_vector_the_cache_is_missed_and_there_is_no_history(
        self, alice: ApiUser, make_worker, moody: Moody
    ) -> None:
        generator = Counting()
        worker = make_worker(generator=generator)
        alice.submit(TIDES)
        worker.process()
        moody.raised = AWAY
        body = {"prompt_text": TIDES}
        ids = [alice.post("/prompts/", json=body | more).json["id"] for more in ({"cache": True}, {"history": 3})]
        worker.process()
        worker.process()
        assert [alice.show(each)["response_text"] for each in ids] == ["answer 2", "answer 3"]
        assert generator.asked[-1].history == []

    def test_an_embedder_that_fails_after_a_change_of_the_users_embedder_keeps_no_prompt_from_its_answer(
        self, alice: ApiUser, make_worker, moody: Moody, sessions: Sessions
    ) -> None:
        """The user's searches compare another embedder's vectors since the claim, and that embedder is down."""

        def switch() -> None:
            with sessions.begin() as session:
                session.execute(text("UPDATE users SET embedder = 'hashing-1'"))
            moody.raised = AWAY

        add_completed(sessions, alice.id, [RUST])
        with sessions.begin() as session:
            session.execute(text("UPDATE users SET embedder = 'backwards-1'"))
        worker = make_worker(moody, Backwards(None), generator=Script("a b", between_chunks=switch))  # type: ignore[arg-type]
        prompt_id = alice.submit(TIDES)
        worker.process()
        assert alice.show(prompt_id)["status"] == "completed"
        moody.recover()
        assert find(alice, TIDES) == ([prompt_id], None)

    def test_a_failing_embedder_is_not_called_for_each_prompt(
        self, alice: ApiUser, worker: Worker, moody: Moody
    ) -> None:
        moody.raised = AWAY
        for i in range(4):
            alice.submit(f"prompt {i}")
            worker.process()
        assert len(moody.calls) == 1
        moody.recover()
        worker.pauses_end()
        alice.submit(TIDES)
        worker.process()
        assert (len(moody.calls), worker.requests) == (2, 1)

    @pytest.mark.parametrize("end", ["failed", "cancelled"])
    def test_a_prompt_without_an_answer_lacks_no_vector(
        self, alice: ApiUser, make_worker, moody: Moody, sessions: Sessions, end: str
    ) -> None:
        prompt_id = alice.submit(TIDES)
        if end == "cancelled":
            alice.post(f"/prompts/{prompt_id}/cancel/")
        moody.raised = AWAY
        make_worker(generator=Script(ProviderError("no", retryable=False))).process()
        assert alice.show(prompt_id)["status"] == end
        assert fetch(sessions, "SELECT vector_due_at FROM prompts") == [(None,)]
        alice.post(f"/prompts/{prompt_id}/retry/")
        make_worker(generator=Script("the answer")).process()
        moody.recover()
        assert find(alice, TIDES) == ([prompt_id], None)


class TestSearching:
    @EACH_STORE
    def test_an_answered_prompt_is_found_by_the_next_search_after_its_embedder_works_again(
        self, alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions
    ) -> None:
        alice.submit(RUST)
        worker.process()
        prompt_id = alice.submit(TIDES)
        moody.raised = AWAY
        worker.process()
        response = alice.get("/prompts/similar/?prompt=tides")
        assert_problem(response, 503)
        assert response.headers["Retry-After"]
        moody.recover()
        moody.calls.clear()
        for expected in ([["the tides"], [TIDES]], [["the tides"]]):
            response = alice.get("/prompts/similar/?prompt=the tides")
            assert response.json[0]["id"] == prompt_id
            assert moody.calls == expected  # the query, and what was missing
            moody.calls.clear()
        assert changes(sessions, alice) == ["completed", "completed", "embedded"]

    @EACH_STORE
    def test_a_vector_that_follows_is_found_by_every_process(
        self, alice: ApiUser, worker: Worker, moody: Moody, settings, services, autocommit_engine, sessions: Sessions
    ) -> None:
        others = add_completed(sessions, alice.id, ["number one", "number two"])
        other = alice.at(app_with(settings, services, autocommit_engine, Embedders(HashingEmbedder())))
        assert find(other, "number one") == ([others[0]], None)  # its replica is loaded
        (prompt_id,) = answer_without_vector(alice, worker, moody, TIDES)
        assert worker.embed_due() == 1
        assert find(other, TIDES) == ([prompt_id], None)
        assert find(alice, TIDES) == ([prompt_id], None)
        assert vectors(sessions) == [*others, prompt_id]

    def test_a_search_embeds_a_limited_number_and_says_how_many_it_did_not_compare(
        self, alice: ApiUser, worker: Worker, moody: Moody, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(late_embedding, "SEARCH_TEXTS", 2)
        ids = answer_without_vector(alice, worker, moody, *(f"number {i}" for i in range(5)))
        assert find(alice, "number 4") == ([ids[4]], "3")
        assert find(alice, "number 0") == ([], "1")
        assert find(alice, "number 0") == ([ids[0]], None)

    def test_a_search_embeds_a_limited_number_of_bytes(
        self, alice: ApiUser, worker: Worker, moody: Moody, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(late_embedding, "SEARCH_BYTES", 20)
        answer_without_vector(alice, worker, moody, "short", "another", "é" * 50, "last one")
        assert [find(alice, "last one")[1] for _ in range(4)] == ["3", "2", None, None]

    def test_a_search_answers_although_the_embedder_fails_for_the_missing_ones(
        self, alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions
    ) -> None:
        (known,) = add_completed(sessions, alice.id, [RUST])
        answer_without_vector(alice, worker, moody, "one", "two")
        moody.refused = {"one": AWAY}
        assert find(alice, RUST) == ([known], "2")

    def test_another_users_missing_vectors_are_not_counted(
        self, alice: ApiUser, bob: ApiUser, worker: Worker, moody: Moody
    ) -> None:
        (prompt_id,) = answer_without_vector(alice, worker, moody, TIDES)
        moody.refused = {TIDES: AWAY}
        assert find(bob, RUST) == ([], None)
        moody.recover()
        assert find(alice, TIDES) == ([prompt_id], None)


def test_a_custom_embedder_that_raises_anything_fails_a_search_with_503(alice: ApiUser, moody: Moody) -> None:
    moody.raised = ZeroDivisionError("a secret detail")
    problem = assert_problem(alice.get("/prompts/similar/?prompt=tides"), 503)
    assert "The embedder failed" in problem["detail"]
    assert "secret" not in problem["detail"]


def test_the_feed_passes_over_a_late_vector(alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions) -> None:
    (first,) = answer_without_vector(alice, worker, moody, TIDES)
    worker.embed_due()
    second = alice.submit(RUST, websocket=True)
    worker.process()
    assert changes(sessions, alice) == ["completed", "embedded", "completed"]
    with sessions() as session:
        page = feed.read(session, alice.id, 0)
        assert [(each.seq, each.prompt_id) for each in page.finished] == [(1, first), (3, second)]
        only_late = feed.read(session, alice.id, 1, limit=1)
    assert (only_late.finished, only_late.reached, only_late.more) == ([], 2, True)


def test_a_late_vector_is_found_although_segments_cover_the_number_of_its_completion(
    alice: ApiUser, worker: Worker, moody: Moody, settings: Settings, servers, sessions: Sessions
) -> None:
    add_completed(sessions, alice.id, [f"number {i}" for i in range(200)])
    (prompt_id,) = answer_without_vector(alice, worker, moody, TIDES)
    for i in range(100):
        alice.submit(f"later {i}")
    worker.process(100)
    sealing = make_services(servers.changed(settings, seal_from_vectors=256))
    assert sealing.maintenance.seal(alice.id) == 1
    make_due(sessions)
    assert worker.embed_due() == 1
    assert find(alice, TIDES) == ([prompt_id], None)
    sealing.pipeline.sessions.kw["bind"].dispose()


class TestFollowing:
    def test_a_running_worker_adds_missing_vectors_by_itself(
        self, alice: ApiUser, worker: Worker, moody: Moody, settings: Settings, servers, sessions: Sessions
    ) -> None:
        (prompt_id,) = answer_without_vector(alice, worker, moody, TIDES)
        with processes.worker(servers.changed(settings, reaper_seconds=0.2), processes=1):
            wait_until(lambda: vectors(sessions) == [prompt_id])

    def test_a_prompt_deleted_before_its_vector_follows_leaves_nothing(
        self, alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions
    ) -> None:
        gone, kept = answer_without_vector(alice, worker, moody, TIDES, RUST)
        alice.delete(f"/prompts/{gone}/")
        moody.during = lambda: alice.delete(f"/prompts/{kept}/")  # while it is being embedded
        assert worker.embed_due() == 0
        assert fetch(sessions, "SELECT * FROM vector_log") == []
        assert find(alice, TIDES) == ([], None)
        assert fetch(sessions, "SELECT vectors_missing FROM users") == [(False,)]
        assert changes(sessions, alice) == ["completed", "completed", "deleted", "deleted"]

    def test_a_deleted_prompt_is_not_found_by_its_late_vector(
        self, alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions
    ) -> None:
        (prompt_id,) = answer_without_vector(alice, worker, moody, TIDES)
        worker.embed_due()
        assert find(alice, TIDES) == ([prompt_id], None)
        alice.delete(f"/prompts/{prompt_id}/")
        assert find(alice, TIDES) == ([], None)
        assert vectors(sessions) == []

    def test_a_vector_that_two_processes_have_made_is_stored_once(
        self, alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions
    ) -> None:
        (prompt_id,) = answer_without_vector(alice, worker, moody, TIDES)
        moody.during = lambda: find(alice, TIDES)  # a search, while the worker embeds
        assert worker.embed_due() == 0
        assert vectors(sessions) == [prompt_id]
        assert changes(sessions, alice) == ["completed", "embedded"]

    def test_several_workers_and_searches_at_once_store_each_vector_once(
        self, alice: ApiUser, bob: ApiUser, make_worker, moody: Moody, sessions: Sessions, monkeypatch
    ) -> None:
        monkeypatch.setattr("worker.missing_vectors.BATCH", 5)
        workers = [make_worker() for _ in range(3)]
        ids = [
            prompt_id
            for user in (alice, bob, alice)
            for prompt_id in answer_without_vector(user, workers[0], moody, *(f"number {i}" for i in range(10)))
        ]
        with ThreadPoolExecutor(5) as threads:
            tasks = [threads.submit(worker.embed_due) for worker in workers]
            tasks += [threads.submit(find, user, "number 3") for user in (alice, bob)]
            for task in tasks:
                task.result()
        workers[0].embed_due()
        assert vectors(sessions) == sorted(ids)
        assert changes(sessions, alice).count("embedded") == 20
        assert changes(sessions, bob).count("embedded") == 10
        assert fetch(sessions, "SELECT DISTINCT vectors_missing FROM users") == [(False,)]

    def test_a_worker_that_must_stop_leaves_its_prompts_to_the_next(
        self, alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions
    ) -> None:
        answer_without_vector(alice, worker, moody, TIDES)
        moody.during = sys.exit
        with pytest.raises(SystemExit):
            worker.embed_due()
        assert fetch(sessions, "SELECT vector_due_at < now() + interval '10 s' FROM prompts") == [(True,)]

    def test_the_reaper_requests_what_is_due(
        self, alice: ApiUser, worker: Worker, moody: Moody, settings, sessions: Sessions, services: Services
    ) -> None:
        class Recording(Queue):
            requests = 0

            def request_missing_vectors(self) -> bool:
                self.requests += 1
                return True

        queue = Recording(services.queue._celery, services.queue._redis)
        reaper = Reaper(settings, sessions, queue, services.announcer)
        reaper.round()
        assert queue.requests == 0
        answer_without_vector(alice, worker, moody, TIDES)
        reaper.round()
        assert queue.requests == 1
        worker.embed_due()
        reaper.round()
        assert queue.requests == 1

    def test_requests_do_not_gather_while_workers_are_busy(self, services: Services) -> None:
        assert [services.queue.request_missing_vectors() for _ in range(3)] == [True, False, False]

    def test_an_outage_gives_up_no_text_however_long_it_lasts(
        self, alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions
    ) -> None:
        (prompt_id,) = answer_without_vector(alice, worker, moody, TIDES)
        moody.raised = ProviderError("The model was not found.", retryable=False)
        for _ in range(2 * missing_vectors.MAX_REFUSALS):
            assert worker.embed_due() == 0
            worker.pauses_end()
        moody.recover()
        assert worker.embed_due() == 1
        assert vectors(sessions) == [prompt_id]

    def test_the_task_does_not_call_a_paused_embedder(self, alice: ApiUser, worker: Worker, moody: Moody) -> None:
        answer_without_vector(alice, worker, moody, TIDES)
        moody.raised = AWAY
        worker.embed_due()
        calls = len(moody.calls)
        make_due(worker.sessions)
        worker.embed_due()
        assert len(moody.calls) == calls

    @pytest.mark.parametrize(
        "error", [ZeroDivisionError(), AWAY, ProviderError("silent"), ProviderError("no", retryable=False)]
    )
    def test_a_text_that_the_embedder_refuses_is_given_up_and_costs_no_other_its_vector(
        self, alice: ApiUser, worker: Worker, moody: Moody, sessions: Sessions, error: Exception
    ) -> None:
        ids = answer_without_vector(alice, worker, moody, "one", "bad", "two")
        moody.refused = {"bad": error}
        assert worker.embed_due() == 2
        moody.calls.clear()
        find(alice, "two")
        assert moody.calls == [["two"]]  # searches do not try it again
        for _ in range(missing_vectors.MAX_REFUSALS):
            make_due(sessions)
            worker.embed_due()
        calls = len(moody.calls)
        make_due(sessions)
        assert worker.embed_due() == 0
        assert len(moody.calls) == calls
        assert vectors(sessions) == [ids[0], ids[2]]
        assert fetch(sessions, "SELECT id, vector_failures FROM prompts WHERE vector_due_at = 'infinity'") == [
            (ids[1], 5)
        ]
        assert find(alice, "two") == ([ids[2]], "1")
        metrics = alice.get("/metrics").text
        assert 'promptwire_vectors_missing{state="given_up"} 1.0' in metrics
        assert 'promptwire_vectors_missing{state="due"} 0.0' in metrics


class TestReindexing:
    def test_missing_vectors_are_reported_but_are_no_difference(
        self, alice: ApiUser, bob: ApiUser, worker: Worker, moody: Moody, settings: Settings, sessions: Sessions
    ) -> None:
        answer_without_vector(alice, worker, moody, TIDES, RUST)
        answer_without_vector(bob, worker, moody, TIDES)
        with sessions.begin() as session:
            given_up = "UPDATE prompts SET vector_due_at = 'infinity', vector_failures = 5 WHERE user_id = :user_id"
            session.execute(text(given_up), {"user_id": bob.id})
        run = partial(CliRunner().invoke, reindex_command, env=environment_of(settings))
        checked = run(["--check"])
        assert checked.exit_code == 0, checked.output
        assert "alice: 2 prompts that wait for their vector\n" in checked.stdout
        assert "bob: 1 prompts that the embedder refuses\n" in checked.stdout
        assert "2 users compared, 0 with differences" in checked.stdout
        assert "1 prompts that the embedder refused will be tried again by the workers." in run([]).stdout
        assert worker.embed_due() == 3
        assert "refuses" not in run(["--check"]).stdout

    def test_reindexing_leaves_missing_vectors_of_the_compared_embedder_to_the_workers(
        self, alice: ApiUser, worker: Worker, moody: Moody, settings: Settings, sessions: Sessions
    ) -> None:
        (known,) = add_completed(sessions, alice.id, [RUST])
        (prompt_id,) = answer_without_vector(alice, worker, moody, TIDES)
        services = make_services(settings)
        assert services.reindexer.reindex(alice.id)
        services.pipeline.sessions.kw["bind"].dispose()
        assert vectors(sessions) == [known]
        assert find(alice, TIDES) == ([prompt_id], None)

    @pytest.fixture
    def backwards(self) -> Backwards:
        return Backwards(None)  # type: ignore[arg-type]

    @pytest.fixture
    def reindexer(self, settings: Settings, servers) -> Iterator:
        switched = servers.changed(settings, embedder="tests.support.providers:Backwards", previous_embedder="hashing")
        made = make_services(switched)
        yield made.reindexer
        made.pipeline.sessions.kw["bind"].dispose()

    def test_a_vector_by_the_embedder_before_the_switch_is_not_stored_after_it(
        self, alice: ApiUser, make_worker, moody: Moody, backwards: Backwards, reindexer, sessions: Sessions
    ) -> None:
        add_completed(sessions, alice.id, [RUST])
        worker = make_worker(backwards, moody)
        (prompt_id,) = answer_without_vector(alice, worker, moody, TIDES)
        moody.during = lambda: reindexer.reindex(alice.id)
        worker.embed_due()
        make_due(sessions)
        worker.embed_due()
        rows = fetch(sessions, "SELECT embedder, prompt_id FROM vector_log ORDER BY prompt_id")
        assert [embedder for embedder, _ in rows] == ["backwards-1"] * 2
        assert rows[-1][1] == prompt_id
        assert fetch(sessions, "SELECT count(*) FROM prompts WHERE vector_due_at IS NOT NULL") == [(0,)]

    def test_reindexing_embeds_missing_ones_and_the_old_embedders_vector_may_come_meanwhile(
        self,
        alice: ApiUser,
        make_worker,
        moody: Moody,
        backwards: Backwards,
        reindexer,
        sessions: Sessions,
        monkeypatch,
    ) -> None:
        monkeypatch.setattr("worker.reindex.reindexer.EMBED_BATCH", 2)
        monkeypatch.setattr("worker.reindex.reindexer.SLICE_SECONDS", 0)
        old = add_completed(sessions, alice.id, [RUST, "number one", "number two"])
        worker = make_worker(backwards, moody)
        ids = answer_without_vector(alice, worker, moody, TIDES, "number three")
        assert not reindexer.reindex(alice.id)
        assert worker.embed_due() == 2  # by the old embedder, which searches still compare
        while not reindexer.reindex(alice.id):
            pass
        rows = fetch(sessions, "SELECT prompt_id, embedder FROM vector_log WHERE vector IS NOT NULL ORDER BY 1")
        assert rows == [(prompt_id, "backwards-1") for prompt_id in [*old, *ids]]
        assert fetch(sessions, "SELECT count(*) FROM prompts WHERE vector_due_at IS NOT NULL") == [(0,)]

    def test_a_text_that_the_new_embedder_refuses_does_not_stop_reindexing(
        self, alice: ApiUser, make_worker, moody: Moody, settings: Settings, sessions: Sessions
    ) -> None:
        """The embedder of `moody` is the new one here, and the users have vectors of another."""
        ids = add_completed(sessions, alice.id, [RUST, TIDES])
        with sessions.begin() as session:
            session.execute(text("UPDATE vector_log SET embedder = 'older'"))
            session.execute(text("UPDATE users SET embedder = 'older'"))
        moody.refused = {RUST: ZeroDivisionError()}
        services = make_services(settings)
        services.reindexer._embedder = moody
        assert services.reindexer.reindex(alice.id)
        services.pipeline.sessions.kw["bind"].dispose()
        assert vectors(sessions) == [ids[1]]
        assert find(alice, TIDES) == ([ids[1]], "1")
        moody.recover()
        worker = make_worker()
        make_due(sessions)
        assert worker.embed_due() == 1
        assert find(alice, RUST) == ([ids[0]], None)
