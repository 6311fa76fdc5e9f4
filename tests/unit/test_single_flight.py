"""Concurrent callers share one call."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from api.realtime.single_flight import SingleFlight
from tests.support.servers import MAX_WAIT_SECONDS, wait_until


class Gate:
    """A function that counts its calls and waits in the first one until it is opened."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._open = threading.Event()

    def __call__(self, key: str) -> int:
        self.calls.append(key)
        number = len(self.calls)
        if number == 1:
            assert self._open.wait(MAX_WAIT_SECONDS)
        return number

    def open(self) -> None:
        self._open.set()


def ask_during_a_call(flight: SingleFlight, gate: Gate, key: str, callers: int) -> tuple[Future, list[Future]]:
    """Start a call, then as many others while it runs. Returns their results, when all of them have ended."""
    with ThreadPoolExecutor(callers + 1) as threads:
        first = threads.submit(flight, key)
        wait_until(lambda: gate.calls)
        others = [threads.submit(flight, key) for _ in range(callers)]
        wait_until(lambda: flight._flights[key].callers == callers + 1)
        gate.open()
    return first, others


def test_callers_that_come_during_a_call_share_the_next_one() -> None:
    gate = Gate()
    first, others = ask_during_a_call(SingleFlight(gate), gate, "a", 20)
    assert first.result(MAX_WAIT_SECONDS) == 1
    assert {other.result(MAX_WAIT_SECONDS) for other in others} == {2}, "a result must not be older than the question"
    assert gate.calls == ["a", "a"]


def test_calls_for_different_keys_do_not_wait_for_each_other() -> None:
    gate = Gate()
    flight = SingleFlight(gate)
    with ThreadPoolExecutor(1) as threads:
        blocked = threads.submit(flight, "a")
        wait_until(lambda: gate.calls)
        assert flight("b") == 2
        gate.open()
        assert blocked.result(MAX_WAIT_SECONDS) == 1


def test_an_error_is_raised_for_all_callers_that_share_the_call_and_for_no_later_one() -> None:
    gate = Gate()
    is_broken = True

    def fail_second(key: str) -> int:
        if gate(key) > 1 and is_broken:
            raise KeyError(key)
        return 1

    flight: SingleFlight[str, int] = SingleFlight(fail_second)
    first, others = ask_during_a_call(flight, gate, "a", 20)
    assert first.result(MAX_WAIT_SECONDS) == 1
    assert all(isinstance(other.exception(), KeyError) for other in others)
    assert len(gate.calls) == 2
    is_broken = False
    assert flight("a") == 1


def test_callers_after_a_call_start_another_one() -> None:
    calls: list[str] = []
    flight: SingleFlight[str, None] = SingleFlight(calls.append)
    flight("a"), flight("a")
    assert calls == ["a", "a"]
    assert flight._flights == {}


def test_a_caller_that_is_interrupted_leaves_the_call_to_the_next_one() -> None:
    function: Callable[[str], int]

    def interrupted(_: str) -> int:
        raise SystemExit

    calls = [interrupted, lambda _: 2]
    function = lambda key: calls.pop(0)(key)  # noqa: E731
    flight = SingleFlight(function)
    with pytest.raises(SystemExit):
        flight("a")
    assert flight("a") == 2
