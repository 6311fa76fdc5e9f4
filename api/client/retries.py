"""When to try again: as the server says in `Retry-After`, else after pauses that double, with jitter."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from .errors import ClientError

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0

#: How to wait so many seconds.
Pause = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to go on with a call, in seconds, and how often to try again on one's own.

    Tries for which the server itself has named the time do not count.
    """

    seconds: float
    retries: float


USUAL = Patience(90.0, 6)
FOREVER = Patience(float("inf"), float("inf"))


class Retries:
    """The retries of one call. `extra` are seconds by which the call is meant to be long."""

    def __init__(self, patience: Patience, pause: Pause, extra: float = 0.0) -> None:
        self._left = patience.retries
        self._deadline = time.monotonic() + patience.seconds + extra
        self._pause = pause
        self._next = _FIRST_PAUSE

    @property
    def seconds_left(self) -> float:
        return self._deadline - time.monotonic()

    def wait(self, failure: ClientError) -> None:
        """Waits for the next try. Raises the failure if there is to be none."""
        jitter = self._next * random.uniform(0.5, 1)  # noqa: S311  # nosec B311
        if failure.retry_after is None:
            self._left -= 1
            seconds, self._next = jitter, min(self._next * 2, _LONGEST_PAUSE)
        else:
            seconds = failure.retry_after + min(jitter, 0.5)
        if self._left < 0 or seconds > self.seconds_left:
            raise failure
        log.warning("%s Trying again in %.1f s.", failure, seconds)
        self._pause(seconds)
