"""Raising an exception in another thread, as a signal handler would in a process of its own.

CPython raises it between two bytecodes of the thread, so a thread within a C function gets it when that returns
(https://docs.python.org/3/c-api/init.html#c.PyThreadState_SetAsyncExc).
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_set = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set.argtypes = (ctypes.c_ulong, ctypes.py_object)


class AsyncException:
    """An exception that another thread may raise in this one, once, and only within a block of code."""

    def __init__(self, kind: type[BaseException]) -> None:
        self._kind = kind
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._is_delivered = False

    @contextmanager
    def deliverable(self) -> Iterator[None]:
        """Let `deliver` raise the exception in this thread while the block runs; never after it."""
        thread = self._thread = threading.get_ident()
        try:
            yield
        finally:
            try:
                self._leave(thread)
            except self._kind:  # it came just now
                self._leave(thread)
                raise

    def _leave(self, thread: int) -> None:
        with self._lock:
            self._thread = None
            # Take back one that is not raised yet. Only then: CPython 3.11 would look for one from here on, between all
            # bytecodes, and under a profiler or a debugger for ever.
            if self._is_delivered:
                _set(thread, ctypes.py_object())

    def deliver(self) -> None:
        """Raise the exception in the thread, if it is within the block."""
        with self._lock:
            if self._thread is not None and not self._is_delivered:
                _set(self._thread, self._kind)
                self._is_delivered = True

    @property
    def is_ignored(self) -> bool:
        """Whether it was delivered, and the thread is still within the block."""
        with self._lock:
            return self._is_delivered and self._thread is not None
