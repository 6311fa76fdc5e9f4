"""Tasks with several prompts: the worker processes them together, and each fails by itself."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.errors import ProviderError
from shared.providers import Embedders, GenerationRequest, Vectors
from shared.providers.hashing import HashingEmbedder
from tests.support.client import ApiUser
from tests.support.lifecycle import RecordingQueue
from worker import pipeline
from worker.leases import WorkerStopping
from worker.pipeline import Pipeline


class Picky:
    """A generator that raises the given exceptions for these prompts and answers all others."""

    name = "picky"

    def __init__(self, max_batch_size: int = 100, **raised: BaseException) -> None:
        self.max_batch_size = max_batch_size
        self._raised = raised
        self.requested: list[str] = []

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        self.requested.append(request.prompt_text)
        if request.prompt_text in self._raised:
            raise self._raised[request.prompt_text]
        yield f"answer to {request.prompt_text}"


class PickyEmbedder(HashingEmbedder):
    """An embedder that rejects every batch that contains the text "bad"."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        if "bad" in texts:
            raise ProviderError("no vector for that", retryable=False)
        return super().embed(texts)


def statuses(user: ApiUser, ids: Sequence[int]) -> list[str]:
    return [user.show(prompt_id)["status"] for prompt_id in ids]


def submit(user: ApiUser, *texts: str) -> list[int]:
    return [user.submit(each) for each in texts]


def test_feed_numbers_of_a_group_follow_the_ids_for_each_user(
    alice: ApiUser, bob: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    ids = [(alice, bob)[i % 2].submit(f"prompt {i}") for i in range(10)]
    worker.process(len(ids))
    with sessions() as session:
        rows = session.execute(text("SELECT user_id, seq, prompt_id, change FROM feed ORDER BY user_id, seq")).all()
        logged = session.execute(text("SELECT user_id, seq, prompt_id FROM vector_log ORDER BY user_id, seq")).all()
    assert [(row.seq, row.prompt_id) for row in rows] == [
        *enumerate(ids[::2], 1), *enumerate(ids[1::2], 1)
    ]  # fmt: skip
    assert [(row.user_id, row.seq, row.prompt_id) for row in rows] == [tuple(row) for row in logged]


def test_a_prompt_that_cannot_be_answered_fails_alone(alice: ApiUser, worker: Pipeline) -> None:
    generator = Picky(bad=ProviderError("I will not", retryable=False), worse=ConnectionError())
    ids = submit(alice, "one", "bad", "two", "worse", "three")
    dataclasses.replace(worker, generator=generator).process(len(ids))
    assert statuses(alice, ids) == ["completed", "failed", "completed", "queued", "completed"]


def test_a_prompt_that_cannot_be_embedded_is_answered_and_costs_no_other_its_vector(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    ids = submit(alice, "one", "bad", "two")
    dataclasses.replace(worker, embedders=Embedders(PickyEmbedder())).process(len(ids))
    assert statuses(alice, ids) == ["completed"] * 3
    with sessions() as session:
        embedded = session.scalars(text("SELECT prompt_id FROM vector_log ORDER BY prompt_id")).all()
    assert embedded == [ids[0], ids[2]]


def test_an_embedder_that_fails_for_a_whole_group_is_called_once(alice: ApiUser, worker: Pipeline) -> None:
    ids = submit(alice, "one", "two", "three")
    calls = []

    class Silent(HashingEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            calls.append(len(texts))
            raise ProviderError("The provider was silent for too long.")

    dataclasses.replace(worker, embedders=Embedders(Silent())).process(len(ids))
    assert calls == [3]
    assert statuses(alice, ids) == ["completed"] * 3


def test_a_prompt_that_cannot_be_stored_fails_alone(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    ids = submit(alice, "one", "two", "three")
    with sessions.begin() as session:
        constraint = f"ALTER TABLE prompts ADD CONSTRAINT no_two CHECK (id <> {ids[1]} OR response_text IS NULL)"
        session.execute(text(constraint))
    worker.process(len(ids))
    assert statuses(alice, ids) == ["completed", "processing", "completed"]


def test_a_prompt_cancelled_while_its_group_is_processed_stays_cancelled(alice: ApiUser, worker: Pipeline) -> None:
    ids = submit(alice, "one", "two", "three")

    class Cancels(Picky):
        def generate(self, request: GenerationRequest) -> Iterator[str]:
            if request.prompt_text == "three":
                alice.post(f"/prompts/{ids[0]}/cancel/")
            yield from super().generate(request)

    dataclasses.replace(worker, generator=Cancels()).process(len(ids))
    assert statuses(alice, ids) == ["cancelled", "completed", "completed"]


def test_a_prompt_over_the_time_limit_fails_and_those_after_it_keep_their_attempts(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    ids = submit(alice, "one", "slow", "two", "three")
    dataclasses.replace(worker, generator=Picky(slow=SoftTimeLimitExceeded())).process(len(ids))
    assert statuses(alice, ids) == ["completed", "queued", "queued", "queued"]
    with sessions() as session:
        query = text("SELECT attempt_limit - attempt, turn IS NOT NULL FROM prompts WHERE id > :first ORDER BY id")
        left = session.execute(query, {"first": ids[0]}).all()
    assert [tuple(row) for row in left] == [(4, False), (5, True), (5, True)]


def test_a_stopping_worker_releases_its_unfinished_prompts(alice: ApiUser, worker: Pipeline) -> None:
    ids = submit(alice, "one", "two")
    with pytest.raises(WorkerStopping):
        dataclasses.replace(worker, generator=Picky(two=WorkerStopping())).process(len(ids))
    assert statuses(alice, ids) == ["queued", "queued"]
    for _ in ids:  # a prompt that was attempted before is claimed alone
        worker.process(1)
    assert statuses(alice, ids) == ["completed", "completed"]


@pytest.mark.parametrize(
    ("max_batch_size", "woken"), [(1, [2, 2]), (2, [2, 1]), (4, [1]), (5, []), (100, [])]
)  # fmt: skip
def test_workers_are_woken_up_for_the_prompts_that_a_task_does_not_take(
    alice: ApiUser, worker: Pipeline, max_batch_size: int, woken: list[int]
) -> None:
    ids = submit(alice, *"abcde")
    generator = Picky(max_batch_size)
    worker = dataclasses.replace(worker, generator=generator, queue=RecordingQueue())
    worker.process(len(ids))
    assert generator.requested == list("abcde")[:max_batch_size]
    assert worker.queue.woken == woken


def test_others_wait_for_a_small_group_of_low_priority_only(
    alice: ApiUser, worker: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "LOW_GROUP", 3)
    for each in "abcdefgh":
        assert alice.post("/prompts/", json={"prompt_text": each, "priority": "low"}).status_code == 202
    generator = Picky(100)
    worker = dataclasses.replace(worker, generator=generator, queue=RecordingQueue())
    worker.process(8)
    assert (generator.requested, worker.queue.woken) == (list("abc"), [3, 2])
    alice.submit("first")
    worker.process(4)
    assert generator.requested[3:] == ["first", *"def"]


def test_a_surplus_message_wakes_up_no_other_workers(alice: ApiUser, worker: Pipeline) -> None:
    worker = dataclasses.replace(worker, generator=Picky(1), queue=RecordingQueue())
    worker.process(500)
    assert worker.queue.woken == []
    alice.submit("a")
    worker.process(1)
    assert worker.queue.woken == []


def test_vectors_of_a_group_equal_those_of_single_prompts(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    texts = ["the tides of the ocean", "bread", "a short history of salt"]
    worker.process(len(submit(alice, *texts)))
    with sessions() as session:
        stored = session.scalars(text("SELECT vector FROM vector_log ORDER BY seq")).all()
    for vector, each in zip(stored, texts, strict=True):
        np.testing.assert_allclose(np.frombuffer(vector, "<f4"), HashingEmbedder().embed([each])[0], rtol=1e-6)
