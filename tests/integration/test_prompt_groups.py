"""A task that carries several prompts: they go through the worker together, and each fails alone."""

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
from worker.pipeline import Pipeline


class Picky:
    """Answers all but what it is told to raise something at."""

    name = "picky"

    def __init__(self, max_batch_size: int = 100, **raised: BaseException) -> None:
        self.max_batch_size = max_batch_size
        self._raised = raised
        self.asked: list[str] = []

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        self.asked.append(request.prompt_text)
        if request.prompt_text in self._raised:
            raise self._raised[request.prompt_text]
        yield f"answer to {request.prompt_text}"


class PickyEmbedder(HashingEmbedder):
    """Refuses whatever comes together with a bad text."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        if "bad" in texts:
            raise ProviderError("no vector for that", retryable=False)
        return super().embed(texts)


def statuses(user: ApiUser, ids: Sequence[int]) -> list[str]:
    return [user.show(prompt_id)["status"] for prompt_id in ids]


def submit(user: ApiUser, *texts: str) -> list[int]:
    return [user.submit(each) for each in texts]


def test_numbers_follow_ids_for_each_user(alice: ApiUser, bob: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    ids = [(alice, bob)[i % 2].submit(f"prompt {i}") for i in range(10)]
    worker.process(ids[::-1])
    with sessions() as session:
        rows = session.execute(text("SELECT user_id, seq, prompt_id, change FROM feed ORDER BY user_id, seq")).all()
        logged = session.execute(text("SELECT user_id, seq, prompt_id FROM vector_log ORDER BY user_id, seq")).all()
    assert [(row.seq, row.prompt_id) for row in rows] == [
        *enumerate(ids[::2], 1), *enumerate(ids[1::2], 1)
    ]  # fmt: skip
    assert [(row.user_id, row.seq, row.prompt_id) for row in rows] == [tuple(row) for row in logged]


def test_one_that_cannot_be_answered_fails_alone(alice: ApiUser, worker: Pipeline) -> None:
    generator = Picky(bad=ProviderError("I will not", retryable=False), worse=ConnectionError())
    ids = submit(alice, "one", "bad", "two", "worse", "three")
    dataclasses.replace(worker, generator=generator).process(ids)
    assert statuses(alice, ids) == ["completed", "failed", "completed", "queued", "completed"]


def test_one_that_cannot_be_embedded_fails_alone(alice: ApiUser, worker: Pipeline) -> None:
    ids = submit(alice, "one", "bad", "two")
    dataclasses.replace(worker, embedders=Embedders(PickyEmbedder())).process(ids)
    assert statuses(alice, ids) == ["completed", "failed", "completed"]
    assert alice.show(ids[1])["error"] == "no vector for that"


def test_an_embedder_that_fails_for_all_is_asked_once(alice: ApiUser, worker: Pipeline) -> None:
    ids = submit(alice, "one", "two", "three")
    calls = []

    class Silent(HashingEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            calls.append(len(texts))
            raise ProviderError("The provider was silent for too long.")

    dataclasses.replace(worker, embedders=Embedders(Silent())).process(ids)
    assert calls == [3]
    assert statuses(alice, ids) == ["queued"] * 3


def test_one_that_cannot_be_stored_fails_alone(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    ids = submit(alice, "one", "two", "three")
    with sessions.begin() as session:
        validate = f"ALTER TABLE prompts ADD CONSTRAINT no_two CHECK (id <> {ids[1]} OR response_text IS NULL)"
        session.execute(text(validate))
    worker.process(ids)
    assert statuses(alice, ids) == ["completed", "processing", "completed"]


def test_one_that_was_cancelled_meanwhile_stays_so(alice: ApiUser, worker: Pipeline) -> None:
    ids = submit(alice, "one", "two", "three")

    class Cancels(Picky):
        def generate(self, request: GenerationRequest) -> Iterator[str]:
            if request.prompt_text == "three":
                alice.post(f"/prompts/{ids[0]}/cancel/")
            yield from super().generate(request)

    dataclasses.replace(worker, generator=Cancels()).process(ids)
    assert statuses(alice, ids) == ["cancelled", "completed", "completed"]


def test_the_one_that_takes_too_long_fails_and_those_after_it_lose_nothing(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    ids = submit(alice, "one", "slow", "two", "three")
    dataclasses.replace(worker, generator=Picky(slow=SoftTimeLimitExceeded())).process(ids)
    assert statuses(alice, ids) == ["completed", "queued", "queued", "queued"]
    with sessions() as session:
        query = text("SELECT attempt_limit - attempt, due_at <= now() FROM prompts WHERE id > :first ORDER BY id")
        left = session.execute(query, {"first": ids[0]}).all()
    assert [tuple(row) for row in left] == [(4, False), (5, True), (5, True)]


def test_a_worker_that_is_told_to_stop_hands_back_what_it_has_not_done(alice: ApiUser, worker: Pipeline) -> None:
    ids = submit(alice, "one", "two")
    with pytest.raises(SystemExit):
        dataclasses.replace(worker, generator=Picky(two=SystemExit())).process(ids)
    assert statuses(alice, ids) == ["queued", "queued"]
    worker.process(ids)
    assert statuses(alice, ids) == ["completed", "completed"]


@pytest.mark.parametrize(("max_batch_size", "tasks"), [(1, 5), (2, 3), (5, 1), (100, 1)])
def test_a_task_carries_as_many_as_the_generator_takes(
    alice: ApiUser, worker: Pipeline, max_batch_size: int, tasks: int
) -> None:
    ids = submit(alice, *"abcde")
    queued = worker.queue.length()
    generator = Picky(max_batch_size)
    dataclasses.replace(worker, generator=generator).process(ids)
    assert generator.asked == list("abcde")[:max_batch_size]
    assert worker.queue.length() - queued == tasks - 1


def test_vectors_are_the_same_as_of_one_alone(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    texts = ["the tides of the ocean", "bread", "a short history of salt"]
    worker.process(submit(alice, *texts))
    with sessions() as session:
        stored = session.scalars(text("SELECT vector FROM vector_log ORDER BY seq")).all()
    for vector, each in zip(stored, texts, strict=True):
        np.testing.assert_allclose(np.frombuffer(vector, "<f4"), HashingEmbedder().embed([each])[0], rtol=1e-6)
