"""The delays between attempts: what the server's `Retry-After` says, else exponential back-off with jitter."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from .errors import ClientError

log = logging.getLogger(__name__)

_FIRST_DELAY_SECONDS, _MAX_DELAY_SECONDS = 0.25, 5.0

#: Sleeps for a number of seconds, as `time.sleep` does.
Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How long to keep trying, in seconds, and how often to retry.

    A retry at a time that the server named does not count.
    """

    seconds: float
    retries: float


DEFAULT_LIMITS = RetryLimits(90.0, 6)
UNLIMITED = RetryLimits(float("inf"), float("inf"))


class Retries:
    """The retries of one call. `extra_seconds` extend the time limit of a call that is meant to take long."""

    def __init__(self, limits: RetryLimits, sleep: Sleep, extra_seconds: float = 0.0) -> None:
        self._left = limits.retries
        self._deadline = time.monotonic() + limits.seconds + extra_seconds
        self._sleep = sleep
        self._next_delay = _FIRST_DELAY_SECONDS

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def wait(self, failure: ClientError) -> None:
        """Sleep until the next attempt. Raises the failure if no attempt is left."""
        jitter = self._next_delay * random.uniform(0.5, 1)  # noqa: S311  # nosec B311
        if failure.retry_after is None:
            self._left -= 1
            delay, self._next_delay = jitter, min(self._next_delay * 2, _MAX_DELAY_SECONDS)
        else:
            delay = failure.retry_after + min(jitter, 0.5)
        if self._left < 0 or delay > self.seconds_left:
            raise failure
        log.warning("%s Trying again in %.1f s.", failure, delay)
        self._sleep(delay)
