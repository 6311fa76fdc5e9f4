"""Interrupting an attempt from another thread: its prompt was cancelled, its time is up, or its worker must stop.

A thread that waits for a provider's next byte does not notice any of these. So another thread sets the attempt's
`Interruption`, which calls the callback that the waiting thread has registered: usually the shutdown of its socket, so
that the connection closes at once and the thread goes on.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import structlog

log = structlog.get_logger(__name__)


class Interruption:
    """Tells one attempt to end. Any thread may set it, once; its thread checks it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        #: What to raise, as soon as it is set.
        self.reason: BaseException | None = None

    def set(self, reason: BaseException) -> None:
        """Interrupt the attempt, unless it already is, and call the callbacks."""
        with self._lock:
            if self.reason is None:
                self.reason = reason
                for callback in self._callbacks:
                    try:
                        callback()
                    except Exception as error:  # such as OSError: the connection was closed just before
                        log.warning("attempt not interrupted", error=type(error).__name__)

    def check(self) -> None:
        """Raise the reason if the attempt is interrupted."""
        if self.reason is not None:
            raise self.reason

    def calling(self, callback: Callable[[], object]) -> "_Calling":
        """Have `callback` called from another thread if the attempt is interrupted while the block runs.

        It must not wait. What it raises is only logged. It is never called after the block. Raises the reason if the
        attempt is already interrupted.
        """
        return _Calling(self, callback)


class _Calling:
    """The block of `Interruption.calling`: a class, because it is entered for each piece of an answer."""

    __slots__ = ("_callback", "_interruption")

    def __init__(self, interruption: Interruption, callback: Callable[[], object]) -> None:
        self._interruption, self._callback = interruption, callback

    def __enter__(self) -> None:
        with self._interruption._lock:
            self._interruption.check()
            self._interruption._callbacks.append(self._callback)

    def __exit__(self, *error: object) -> None:
        with self._interruption._lock:
            self._interruption._callbacks.remove(self._callback)


_current: ContextVar[Interruption | None] = ContextVar("interruption", default=None)


def current() -> Interruption:
    """The interruption of the attempt that this thread works on. Outside of attempts: one that is never set."""
    return _current.get() or Interruption()


@contextmanager
def attached(interruption: Interruption) -> Iterator[None]:
    """Make `current` return this interruption within the block, in this thread."""
    token = _current.set(interruption)
    try:
        yield
    finally:
        _current.reset(token)
