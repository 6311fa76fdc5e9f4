"""Measuring whether work grows in proportion to its input, by the processor time of this thread."""

import time
from collections.abc import Callable


def cpu_seconds(work: Callable[[], object]) -> float:
    """The shortest processor time of three calls."""
    best = float("inf")
    for _ in range(3):
        started = time.thread_time()
        work()
        best = min(best, time.thread_time() - started)
    return best


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Check that `work(4 * size)` takes at most eight times as long as `work(size)`: quadratic work takes sixteen."""
    work(100)  # loads and compiles what is needed once
    short, long = cpu_seconds(lambda: work(size)), cpu_seconds(lambda: work(4 * size))
    assert long < 8 * short + 0.05, f"{short:.4f} s, then {long:.4f} s"
