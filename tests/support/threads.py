"""Parallel calls."""

import threading
from collections.abc import Callable
from typing import TypeVar

from tests.support.servers import MAX_WAIT_SECONDS

R = TypeVar("R")


def at_once(times: int, call: Callable[[], R]) -> list[R]:
    """Call a function from this many threads at once. Returns the results in no particular order."""
    results: list[R] = []
    threads = [threading.Thread(target=lambda: results.append(call())) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MAX_WAIT_SECONDS)
    return results
