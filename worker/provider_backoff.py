"""How long a worker process leaves an unavailable provider alone."""

import random
import time
from datetime import timedelta

#: The backoff after a first failure, unless the provider names one. It doubles with each, up to the maximum.
MIN_SECONDS, MAX_SECONDS = 1.0, 30.0
#: Doubling further changes nothing.
_MAX_DOUBLINGS = 10


class ProviderBackoff:
    """When this process asks its provider again. Until then prompts are rescheduled without a call.

    `max_retry_after` bounds what the provider asks for with Retry-After.
    """

    def __init__(self, max_retry_after: timedelta) -> None:
        self._max_retry_after = max_retry_after.total_seconds()
        self._until = 0.0
        self._failures = 0

    @property
    def is_active(self) -> bool:
        return time.monotonic() < self._until

    @property
    def delay(self) -> timedelta:
        """How long to reschedule a prompt: the rest of the backoff and up to half as much, so that not all come back
        at the same moment."""
        left = max(0.0, self._until - time.monotonic())
        return timedelta(seconds=left * random.uniform(1, 1.5))  # noqa: S311  # nosec B311

    def record_failure(self, retry_after: float | None) -> None:
        """Back off: the provider is unavailable. `retry_after` is the number of seconds that it asks for, if any."""
        if retry_after is None:
            seconds = min(MIN_SECONDS * 2**self._failures, MAX_SECONDS)
        else:
            seconds = max(retry_after, MIN_SECONDS)
        self._failures = min(self._failures + 1, _MAX_DOUBLINGS)
        self._until = max(self._until, time.monotonic() + min(seconds, self._max_retry_after))

    def record_success(self) -> None:
        """Begin with the shortest backoff after the next failure: the provider has answered."""
        self._failures = 0
