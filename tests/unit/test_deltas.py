"""The texts of answers are published in order, whole, not too often, and not after the end of their attempts."""

import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.messaging.partial_text import Write
from shared.prompts.claims import Claim
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from worker import deltas
from worker.deltas import DeltaPublisher

NOW = datetime.now(UTC)
CLAIM = Claim(1, 1, False, 1, "Hi", True, "r", None, None, 0, NOW, None, NOW)


class Store:
    """Keeps what is written. A write waits for `may_write`, or fails."""

    def __init__(self) -> None:
        self.may_write, self.is_writing = threading.Event(), threading.Event()
        self.may_write.set()
        self.error: Exception | None = None
        self.writes: list[tuple[float, Write]] = []
        self.log: list[str] = []

    def write(self, writes: Sequence[Write]) -> list[bool]:
        self.is_writing.set()
        assert self.may_write.wait(MAX_WAIT_SECONDS)
        if self.error is not None:
            raise self.error
        self.writes += [(time.monotonic(), write) for write in writes]
        self.log += [write.text for write in writes]
        return [True] * len(writes)

    def end(self, *_: Any) -> None:
        self.log.append("end")


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def publisher(store: Store) -> DeltaPublisher:
    return DeltaPublisher(store)  # type: ignore[arg-type]


def test_what_is_gathered_during_the_last_write_is_written_before_the_end(
    store: Store, publisher: DeltaPublisher
) -> None:
    store.may_write.clear()
    with publisher.attempt(CLAIM) as answer:
        publisher.add(answer, "a")
        assert store.is_writing.wait(MAX_WAIT_SECONDS)
        publisher.add(answer, "b")
        threading.Timer(0.05, store.may_write.set).start()
    assert store.log == ["a", "b", "end"]
    assert [write.offset for _, write in store.writes] == [0, 1]


def test_a_chunk_that_comes_during_a_write_waits_for_the_interval(
    store: Store, publisher: DeltaPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With many prompts there is always a write."""
    monkeypatch.setattr(deltas, "INTERVAL_SECONDS", 0.5)
    store.may_write.clear()
    with publisher.attempt(CLAIM) as answer:
        publisher.add(answer, "a")
        assert store.is_writing.wait(MAX_WAIT_SECONDS)
        publisher.add(answer, "b")
        store.may_write.set()
        wait_until(lambda: len(store.writes) == 2, what="the second write")
    (first, _), (second, _) = store.writes
    assert second - first > 0.4


def test_an_unexpected_error_does_not_keep_an_attempt_from_ending(store: Store, publisher: DeltaPublisher) -> None:
    store.error = ValueError()
    with publisher.attempt(CLAIM) as answer:
        publisher.add(answer, "a")
        assert store.is_writing.wait(MAX_WAIT_SECONDS)
        wait_until(lambda: not answer.is_being_written, what="the failure")
        store.error = None
        publisher.add(answer, "b")
    assert "".join(write.text for _, write in store.writes) == "ab"
