"""Prompts that are answered while the embedder fails: at once, and found by the next search after it works again."""

import numpy as np
import pytest
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.errors import ProviderError
from shared.prompts import feed
from shared.providers import Embedders
from shared.providers.hashing import HashingEmbedder
from shared.search import vector_backfill
from tests.support.client import ApiUser, assert_problem
from tests.support.embedders import UNAVAILABLE, FlakyEmbedder, Worker, app_with
from tests.support.missing_vectors import RUST, TIDES, answer_without_vector, changes, fetch, find, vectors
from tests.support.providers import Backwards, Counting, Script
from tests.support.vectors import EACH_STORE, add_completed


class TestAnswering:
    @pytest.mark.parametrize(
        ("raised", "returned"),
        [
            (UNAVAILABLE, None),
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
        self,
        alice: ApiUser,
        worker: Worker,
        embedder: FlakyEmbedder,
        sessions: Sessions,
        raised: Exception,
        returned: object,
    ) -> None:
        prompt_id = alice.submit(TIDES, websocket=True)
        embedder.raised, embedder.returned = raised, returned
        worker.process()
        shown = alice.show(prompt_id)
        assert (shown["status"], shown["attempt"], shown["error"]) == ("completed", 1, None)
        with sessions() as session:
            assert [each.seq for each in feed.read(session, alice.id, 0).events] == [1]
        assert vectors(sessions) == []
        embedder.recover()
        assert find(alice, TIDES) == ([prompt_id], None)

    def test_without_a_vector_the_cache_is_missed_and_there_is_no_history(
        self, alice: ApiUser, make_flaky_worker, embedder: FlakyEmbedder
    ) -> None:
        generator = Counting()
        worker = make_flaky_worker(generator=generator)
        alice.submit(TIDES)
        worker.process()
        embedder.raised = UNAVAILABLE
        body = {"prompt_text": TIDES}
        ids = [alice.post("/prompts/", json=body | more).json["id"] for more in ({"cache": True}, {"history": 3})]
        worker.process()
        worker.process()
        assert [alice.show(each)["response_text"] for each in ids] == ["answer 2", "answer 3"]
        assert generator.asked[-1].history == []

    def test_a_prompt_is_answered_although_the_new_embedder_of_its_user_fails(
        self, alice: ApiUser, make_flaky_worker, embedder: FlakyEmbedder, sessions: Sessions
    ) -> None:
        """The user's searches compare another embedder's vectors since the claim, and that embedder is down."""

        def switch() -> None:
            with sessions.begin() as session:
                session.execute(text("UPDATE users SET embedder = 'hashing-1'"))
            embedder.raised = UNAVAILABLE

        add_completed(sessions, alice.id, [RUST])
        with sessions.begin() as session:
            session.execute(text("UPDATE users SET embedder = 'backwards-1'"))
        worker = make_flaky_worker(embedder, Backwards(None), generator=Script("a b", between_chunks=switch))  # type: ignore[arg-type]
        prompt_id = alice.submit(TIDES)
        worker.process()
        assert alice.show(prompt_id)["status"] == "completed"
        embedder.recover()
        assert find(alice, TIDES) == ([prompt_id], None)

    def test_a_failing_embedder_is_not_called_for_each_prompt(
        self, alice: ApiUser, worker: Worker, embedder: FlakyEmbedder
    ) -> None:
        embedder.raised = UNAVAILABLE
        for i in range(4):
            alice.submit(f"prompt {i}")
            worker.process()
        assert len(embedder.calls) == 1
        embedder.recover()
        worker.end_pauses()
        alice.submit(TIDES)
        worker.process()
        assert (len(embedder.calls), worker.requests) == (2, 1)

    @pytest.mark.parametrize("end", ["failed", "cancelled"])
    def test_a_prompt_without_an_answer_is_not_missing_a_vector(
        self, alice: ApiUser, make_flaky_worker, embedder: FlakyEmbedder, sessions: Sessions, end: str
    ) -> None:
        prompt_id = alice.submit(TIDES)
        if end == "cancelled":
            alice.post(f"/prompts/{prompt_id}/cancel/")
        embedder.raised = UNAVAILABLE
        make_flaky_worker(generator=Script(ProviderError("no", retryable=False))).process()
        assert alice.show(prompt_id)["status"] == end
        assert fetch(sessions, "SELECT vector_due_at FROM prompts") == [(None,)]
        alice.post(f"/prompts/{prompt_id}/retry/")
        make_flaky_worker(generator=Script("the answer")).process()
        embedder.recover()
        assert find(alice, TIDES) == ([prompt_id], None)


class TestSearching:
    @EACH_STORE
    def test_an_answered_prompt_is_found_by_the_next_search_after_its_embedder_works_again(
        self, alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, sessions: Sessions
    ) -> None:
        alice.submit(RUST)
        worker.process()
        prompt_id = alice.submit(TIDES)
        embedder.raised = UNAVAILABLE
        worker.process()
        response = alice.get("/prompts/similar/?prompt=tides")
        assert_problem(response, 503)
        assert response.headers["Retry-After"]
        embedder.recover()
        embedder.calls.clear()
        for expected in ([["the tides"], [TIDES]], [["the tides"]]):
            response = alice.get("/prompts/similar/?prompt=the tides")
            assert response.json[0]["id"] == prompt_id
            assert embedder.calls == expected  # the query, and what was missing
            embedder.calls.clear()
        assert changes(sessions, alice) == ["completed", "completed", "embedded"]

    @EACH_STORE
    def test_a_backfilled_vector_is_found_by_every_process(
        self,
        alice: ApiUser,
        worker: Worker,
        embedder: FlakyEmbedder,
        settings,
        services,
        autocommit_engine,
        sessions: Sessions,
    ) -> None:
        others = add_completed(sessions, alice.id, ["number one", "number two"])
        other = alice.at(app_with(settings, services, autocommit_engine, Embedders(HashingEmbedder())))
        assert find(other, "number one") == ([others[0]], None)  # its replica is loaded
        (prompt_id,) = answer_without_vector(alice, worker, embedder, TIDES)
        assert worker.embed_due() == 1
        assert find(other, TIDES) == ([prompt_id], None)
        assert find(alice, TIDES) == ([prompt_id], None)
        assert vectors(sessions) == [*others, prompt_id]

    def test_a_search_embeds_a_limited_number_and_says_how_many_it_did_not_compare(
        self, alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vector_backfill, "SEARCH_TEXTS", 2)
        ids = answer_without_vector(alice, worker, embedder, *(f"number {i}" for i in range(5)))
        assert find(alice, "number 4") == ([ids[4]], "3")
        assert find(alice, "number 0") == ([], "1")
        assert find(alice, "number 0") == ([ids[0]], None)

    def test_a_search_embeds_a_limited_number_of_bytes(
        self, alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vector_backfill, "SEARCH_BYTES", 20)
        answer_without_vector(alice, worker, embedder, "short", "another", "é" * 50, "last one")
        assert [find(alice, "last one")[1] for _ in range(4)] == ["3", "2", None, None]

    def test_a_search_answers_although_the_embedder_fails_for_the_missing_ones(
        self, alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, sessions: Sessions
    ) -> None:
        (known,) = add_completed(sessions, alice.id, [RUST])
        answer_without_vector(alice, worker, embedder, "one", "two")
        embedder.refused = {"one": UNAVAILABLE}
        assert find(alice, RUST) == ([known], "2")

    def test_another_users_missing_vectors_are_not_counted(
        self, alice: ApiUser, bob: ApiUser, worker: Worker, embedder: FlakyEmbedder
    ) -> None:
        (prompt_id,) = answer_without_vector(alice, worker, embedder, TIDES)
        embedder.refused = {TIDES: UNAVAILABLE}
        assert find(bob, RUST) == ([], None)
        embedder.recover()
        assert find(alice, TIDES) == ([prompt_id], None)


def test_a_custom_embedder_that_raises_anything_fails_a_search_with_503(
    alice: ApiUser, embedder: FlakyEmbedder
) -> None:
    embedder.raised = ZeroDivisionError("a secret detail")
    problem = assert_problem(alice.get("/prompts/similar/?prompt=tides"), 503)
    assert "The embedder failed" in problem["detail"]
    assert "secret" not in problem["detail"]


def test_the_feed_passes_over_a_backfilled_vector(
    alice: ApiUser, worker: Worker, embedder: FlakyEmbedder, sessions: Sessions
) -> None:
    (first,) = answer_without_vector(alice, worker, embedder, TIDES)
    worker.embed_due()
    second = alice.submit(RUST, websocket=True)
    worker.process()
    assert changes(sessions, alice) == ["completed", "embedded", "completed"]
    with sessions() as session:
        page = feed.read(session, alice.id, 0)
        assert [(each.seq, each.prompt_id) for each in page.events] == [(1, first), (3, second)]
        only_backfilled = feed.read(session, alice.id, 1, limit=1)
    assert (only_backfilled.events, only_backfilled.reached, only_backfilled.more) == ([], 2, True)
