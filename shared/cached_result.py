"""Keeping the result of a function for a short time, so that it runs rarely, however many callers ask."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class CachedResult(Generic[Result]):
    """The result of a function, which is called again after `seconds`, by one caller at a time. Thread-safe."""

    def __init__(self, function: Callable[[], Result], seconds: float) -> None:
        self._function = function
        self._seconds = seconds
        self._lock = threading.Lock()
        self._result: tuple[Result] | None = None
        self._valid_until = 0.0

    def __call__(self) -> Result:
        with self._lock:
            if self._result is None or time.monotonic() >= self._valid_until:
                self._result = (self._function(),)
                self._valid_until = time.monotonic() + self._seconds
            return self._result[0]
