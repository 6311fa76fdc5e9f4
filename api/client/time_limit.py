"""A time limit for commands that wait."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: The least time, in seconds, that a wait gets: a timer of 0 would never ring.
_MIN_SECONDS = 0.01


class TimeLimitReached(BaseException):
    """A command has waited for as long as `--timeout` allows.

    Like KeyboardInterrupt it is no Exception, so that no library handles it.
    """


@contextmanager
def time_limit(deadline: float | None) -> Iterator[None]:
    """Raise TimeLimitReached in the block at a time of `time.monotonic`; None: never.

    It is a signal, so it also ends what blocks in a system call. It works in the main thread only.
    """
    if deadline is None:
        yield
        return
    previous = signal.signal(signal.SIGALRM, _ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(_MIN_SECONDS, deadline - time.monotonic()))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _ring(*_: object) -> None:
    raise TimeLimitReached
