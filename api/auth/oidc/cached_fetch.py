"""A cache for what is fetched from the identity provider: its configuration and its keys."""

import math
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from api.auth.oidc.errors import ProviderUnavailableError

Value = TypeVar("Value")

KEEP_SECONDS = 3_600.0
#: The shortest time between two requests, after a failure or for new keys.
RETRY_SECONDS = 10.0


class CachedFetch(Generic[Value]):
    """A value that is fetched when it is needed, by one caller at a time, and cached for `seconds`.

    While the provider is unavailable, the last value stays. Without one, callers get the error of the last attempt at
    once: they do not wait for attempts that end with a timeout.
    """

    def __init__(
        self, fetch: Callable[[], Value], *, seconds: float = KEEP_SECONDS, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._retry_seconds = retry_seconds
        self._lock = threading.Lock()
        self._attempted_at = -math.inf
        self._value: Value | None = None
        self._error: str | None = None  # of the last attempt, if it failed

    def get(self, *, refresh: bool = False) -> Value:
        """The value; with `refresh` a new one, unless it was fetched just before.

        Raises:
            ProviderUnavailableError: it could not be fetched yet.
        """
        with self._lock:
            is_kept = self._error is None and not refresh
            if time.monotonic() >= self._attempted_at + (self._seconds if is_kept else self._retry_seconds):
                self._update()
            if self._value is None:
                raise ProviderUnavailableError(self._error or "")
            return self._value

    def _update(self) -> None:
        self._error = "the last attempt failed"  # unless it succeeds, whatever it raises
        try:
            self._value = self._fetch()
        except ProviderUnavailableError as error:
            self._error = str(error)
        else:
            self._error = None
        finally:
            self._attempted_at = time.monotonic()
