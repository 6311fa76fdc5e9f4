"""A semaphore that is fair: whoever waits longest is next. Those of `threading` let newcomers go first."""

import threading
from collections import deque


class Turns:
    """So many at the same time: `with db_slots: …`."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()  # hands the turn over
            else:
                self._free += 1
