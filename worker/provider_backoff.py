"""Leaving a provider alone that takes nothing at the moment."""

import random
import time
from datetime import timedelta

#: The pause after a first failure, unless the provider names one. It doubles with each, up to the longest.
SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 30.0


class ProviderBackoff:
    """When this process will ask its provider again: what comes before is put off, without a call.

    A provider may ask for a pause of `longest` at most.
    """

    def __init__(self, longest: timedelta) -> None:
        self._longest = longest.total_seconds()
        self._until = 0.0
        self._failures = 0

    @property
    def is_on(self) -> bool:
        return time.monotonic() < self._until

    @property
    def delay(self) -> timedelta:
        """How long something is to be put off: what is left of the pause, and up to half as much more, so that not
        everything comes back at the same moment."""
        left = max(0.0, self._until - time.monotonic())
        return timedelta(seconds=left * random.uniform(1, 1.5))  # noqa: S311  # nosec B311

    def begin(self, retry_after: float | None) -> None:
        """The provider took nothing. `retry_after` is how many seconds it wants to be left alone, if it says so."""
        if retry_after is None:
            seconds = min(SHORTEST_SECONDS * 2**self._failures, LONGEST_SECONDS)
        else:
            seconds = max(retry_after, SHORTEST_SECONDS)
        self._failures = min(self._failures + 1, 10)
        self._until = max(self._until, time.monotonic() + min(seconds, self._longest))

    def end(self) -> None:
        """The provider has answered."""
        self._failures = 0
