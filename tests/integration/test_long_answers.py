"""An answer has at most MAX_ANSWER_BYTES; what a generator sends beyond that is not read."""

import dataclasses
import time
from collections.abc import Iterator

import pytest

from shared.messaging.redis import make_redis
from shared.providers import GenerationRequest
from shared.settings import Settings
from tests.support.client import ApiUser
from tests.support.providers import Script
from worker.pipeline import Pipeline

MAX_BYTES = 1_000


@pytest.fixture
def worker(worker: Pipeline) -> Pipeline:
    return dataclasses.replace(worker, max_answer_bytes=MAX_BYTES)


class Endless:
    """Sends the same chunk for ever, and records how often it was asked for one, and that it was closed."""

    name, max_batch_size = "endless", 1

    def __init__(self, chunk: str) -> None:
        self.chunk, self.chunks, self.closed = chunk, 0, False

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        try:
            while True:
                self.chunks += 1
                yield self.chunk
        finally:
            self.closed = True


@pytest.mark.parametrize(("chunk", "read"), [("a" * 100, 11), ("ü" * 100, 6), ("\0" * 100, 4), ("a" * 1_001, 1)])
def test_a_prompt_fails_without_a_retry_when_its_answer_is_too_long(
    alice: ApiUser, worker: Pipeline, chunk: str, read: int
) -> None:
    generator = Endless(chunk)
    prompt_id = alice.submit()
    dataclasses.replace(worker, generator=generator).process(1)
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["attempt"], shown["response_text"]) == ("failed", 1, None)
    assert "1000 bytes (MAX_ANSWER_BYTES)" in shown["error"]
    assert (generator.chunks, generator.closed) == (read, True)


def test_an_answer_of_exactly_the_maximum_length_is_completed(alice: ApiUser, worker: Pipeline) -> None:
    prompt_id = alice.submit()
    dataclasses.replace(worker, generator=Script("ü" * 499 + "a")).process(1)
    shown = alice.show(prompt_id)
    assert shown["status"] == "completed"
    assert len(shown["response_text"].encode()) == MAX_BYTES


def test_no_more_than_the_maximum_length_is_published(alice: ApiUser, worker: Pipeline, settings: Settings) -> None:
    prompt_id = alice.submit()
    words = " ".join(["word"] * 400)
    generator = Script(words, between_chunks=lambda: time.sleep(0.001))
    dataclasses.replace(worker, generator=generator).process(1)
    assert alice.show(prompt_id)["status"] == "failed"
    with make_redis(settings) as redis:
        sizes = [redis.strlen(name) for name in redis.scan_iter("promptwire:text:*")]
    assert sizes and max(sizes) <= MAX_BYTES  # noqa: PT018


def test_a_prompt_beside_one_whose_answer_is_too_long_is_answered(
    alice: ApiUser, bob: ApiUser, worker: Pipeline
) -> None:
    long, short = alice.submit(), bob.submit()
    generator = Script("a" * 2_000, "an answer")
    generator.max_batch_size = 2
    dataclasses.replace(worker, generator=generator).process(2)
    assert alice.show(long)["status"] == "failed"
    assert bob.show(short)["status"] == "completed"
