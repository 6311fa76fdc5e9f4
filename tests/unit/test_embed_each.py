"""Embedding texts of which an embedder refuses some, and pausing an embedder that does not work."""

from collections.abc import Sequence

import numpy as np
import pytest

from shared.errors import ProviderError, ProviderUnavailableError
from shared.providers import Vectors
from shared.providers.embed_each import EmbedderOutageError, concerns_all_texts, embed_each
from shared.providers.hashing import HashingEmbedder
from shared.providers.interruption import Interruption, attached
from worker.embedder_pause import MAX_PAUSE_SECONDS, EmbedderPause


class Picky(HashingEmbedder):
    """Raises for some texts, and records its calls."""

    def __init__(self, **raised: Exception) -> None:
        super().__init__()
        self._raised = raised
        self.calls: list[int] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(len(texts))
        for each in texts:
            if each in self._raised:
                raise self._raised[each]
        return super().embed(texts)


def describe(results: Sequence[Vectors | Exception]) -> str:
    """Return a dot for each vector, and an x for each error."""
    return "".join("x" if isinstance(each, Exception) else "." for each in results)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("abcd", "...."),
        ("abcdX", "....x"),
        ("X", "x"),
        ("XX", "xx"),
        ("aXbXcdefg", ".x.x....."),
        ("Xabcdefg", "x......."),
    ],
)
def test_each_text_gets_its_vector_or_its_own_error(texts: str, expected: str) -> None:
    embedder = Picky(X=ValueError("no"))
    results = embed_each(embedder, list(texts), is_outage=concerns_all_texts)
    assert describe(results) == expected
    for each, result in zip(texts, results, strict=True):
        if not isinstance(result, Exception):
            np.testing.assert_allclose(result, HashingEmbedder().embed([each])[0], rtol=1e-6)


def test_one_refused_text_among_many_costs_few_calls() -> None:
    embedder = Picky(X=ValueError("no"))
    embed_each(embedder, [*"abc" * 85, "X"], is_outage=concerns_all_texts)
    assert len(embedder.calls) == 17


@pytest.mark.parametrize("error", [ProviderError("later"), ProviderUnavailableError("down")])
def test_an_error_that_concerns_all_texts_is_an_outage(error: ProviderError) -> None:
    embedder = Picky(X=error)
    with pytest.raises(EmbedderOutageError) as raised:
        embed_each(embedder, list("aXbc"), is_outage=concerns_all_texts)
    assert raised.value.cause is error
    assert embedder.calls == [4]


def test_an_interrupted_attempt_is_not_taken_for_a_failure_of_the_embedder() -> None:
    class CancelledError(Exception):
        """The prompt was cancelled."""

    interruption = Interruption()
    interruption.set(CancelledError())
    with attached(interruption), pytest.raises(CancelledError):
        embed_each(Picky(X=OSError("closed")), ["X"], is_outage=lambda _: False)


class Clock:
    """A clock that is set by hand, and a pause by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.recoveries = 0
        self.embedder = HashingEmbedder()
        self.pause = EmbedderPause(self._recover, lambda: self.now)

    def _recover(self) -> None:
        self.recoveries += 1

    def fail(self) -> None:
        started_at = self.pause.try_call(self.embedder)
        assert started_at is not None
        self.pause.record_failure(self.embedder, started_at, ProviderError("no"))

    def seconds_until_a_call(self) -> int:
        """Let seconds pass until the embedder may be called; then it is called."""
        start = self.now
        while self.pause.try_call(self.embedder) is None:
            self.now += 1
        return round(self.now - start)


def test_the_pause_doubles_with_each_failure_up_to_a_limit_and_success_ends_it() -> None:
    clock, seconds = Clock(), []
    clock.fail()
    for _ in range(6):
        start = clock.now
        clock.seconds_until_a_call()
        clock.pause.record_failure(clock.embedder, clock.now, ProviderError("no"))
        seconds.append(clock.now - start)
    assert seconds == [5, 10, 20, 40, MAX_PAUSE_SECONDS, MAX_PAUSE_SECONDS]
    clock.seconds_until_a_call()
    clock.pause.record_success(clock.embedder)
    assert (clock.seconds_until_a_call(), clock.recoveries) == (0, 1)
    clock.fail()
    assert clock.seconds_until_a_call() == 5


def test_after_a_pause_one_caller_tries_the_embedder_and_the_others_wait_for_it() -> None:
    clock = Clock()
    clock.fail()
    clock.seconds_until_a_call()
    assert clock.pause.try_call(clock.embedder) is None


def test_calls_that_fail_together_pause_once() -> None:
    clock = Clock()
    started = [clock.pause.try_call(clock.embedder) for _ in range(20)]
    clock.now = 1.0
    for each in started:
        assert each is not None
        clock.pause.record_failure(clock.embedder, each, ProviderError("no"))
    assert clock.seconds_until_a_call() == 5
