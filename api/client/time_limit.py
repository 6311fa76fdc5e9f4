"""Time limits for commands, and for what they wait for."""

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
def time_limit(deadline: float | None, message: str = "") -> Iterator[None]:
    """Raise TimeLimitReached in the block at a time of `time.monotonic`; None: never.

    It is a signal, so it also ends what blocks in a system call. It works in the main thread only. Limits may be
    nested: the outer one goes on afterwards.
    """
    if deadline is None:
        yield
        return

    def ring(*_: object) -> None:
        raise TimeLimitReached(message)

    started = time.monotonic()
    previous = signal.signal(signal.SIGALRM, ring)
    outer, _ = signal.setitimer(signal.ITIMER_REAL, max(_MIN_SECONDS, deadline - started))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(_MIN_SECONDS, started + outer - time.monotonic()))
