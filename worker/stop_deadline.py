"""A bound for how long a worker's main process may take to stop.

Celery's stop has no end of its own: it joins its processes and threads. One of many stops right after a task was seen
to wait for ever. A worker that is killed loses nothing: leases lapse, and the reaper sends its messages again.
"""

import os
import signal
import threading
from types import FrameType

import billiard
import structlog

log = structlog.get_logger(__name__)

#: What a stop may take beyond SOFT_SHUTDOWN_SECONDS.
GRACE_SECONDS = 10.0
_SIGNALS = (signal.SIGTERM, signal.SIGQUIT)


def install(seconds: float) -> None:
    """End this process and its children `seconds` after the first signal to stop, if they have not ended by then.

    Call it in the main thread, once Celery has set its signal handlers, which are called as before. Calling it again
    does nothing.
    """
    for number in _SIGNALS:
        handler = signal.getsignal(number)
        if callable(handler) and not isinstance(handler, _Handler):
            signal.signal(number, _Handler(handler, seconds))


def begin(seconds: float) -> None:
    """End this process and its children after these seconds, if they have not ended by then."""
    timer = threading.Timer(seconds, _kill)
    timer.daemon = True
    timer.start()


class _Handler:
    """A signal handler that starts the deadline, and then calls the one that was there before."""

    def __init__(self, previous: object, seconds: float) -> None:
        self._previous = previous
        self._seconds = seconds

    def __call__(self, number: int, frame: FrameType | None) -> None:
        begin(self._seconds)
        self._previous(number, frame)  # type: ignore[operator]


def _kill() -> None:
    log.error("worker did not stop in time, killed")
    for child in billiard.active_children():
        os.kill(child.pid, signal.SIGKILL)
    os._exit(1)
