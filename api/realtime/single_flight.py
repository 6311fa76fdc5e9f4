"""Sharing one call among concurrent callers, as Go's `singleflight` does."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class _Flight(Generic[Value]):
    """The calls for one key, one at a time."""

    __slots__ = ("callers", "ended", "error", "lock", "started", "value")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.callers = 0
        self.started = self.ended = 0  # how many calls have
        self.value: Value | None = None  #: of the call that ended last, unless it failed
        self.error: Exception | None = None


class SingleFlight(Generic[Key, Value]):
    """Calls a function once for all callers that ask for the same key at the same time.

    A caller never gets a result of a call that started before it asked: callers that come while a call is running share
    the next one. Callers wake up one after the other, so that thousands of them do not occupy the event loop.

    Args:
        function: Takes a key. What it returns or raises is shared, and must not be changed.
    """

    def __init__(self, function: Callable[[Key], Value]) -> None:
        self._function = function
        self._flights: dict[Key, _Flight[Value]] = {}
        self._lock = threading.Lock()

    def __call__(self, key: Key) -> Value:
        with self._lock:
            flight = self._flights.setdefault(key, _Flight())
            flight.callers += 1
            wanted = flight.started + 1
        try:
            with flight.lock:  # passes from caller to caller
                if flight.ended < wanted:
                    self._call(key, flight)
                if flight.error is not None:
                    raise flight.error
                return flight.value  # type: ignore[return-value]
        finally:
            with self._lock:
                flight.callers -= 1
                if not flight.callers:
                    del self._flights[key]

    def _call(self, key: Key, flight: _Flight[Value]) -> None:
        """Call the function. If this caller is killed meanwhile, the next one calls it."""
        with self._lock:
            flight.started += 1
            number = flight.started
        try:
            flight.value, flight.error = self._function(key), None
        except Exception as error:
            flight.value, flight.error = None, error
        flight.ended = number
