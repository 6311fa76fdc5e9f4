"""A fair semaphore: the thread that has waited longest is next. The standard library's lets newcomers pass."""

import threading
from collections import deque


class FairSemaphore:
    """Limits how many threads are in `with semaphore: …` at the same time."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Event()
            self._waiting.append(turn)
        turn.wait()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # passes the slot on
            else:
                self._free += 1
