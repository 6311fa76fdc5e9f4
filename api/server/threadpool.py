"""Keeping the event loop free: what uses much CPU runs in pools of native threads."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import gevent
from gevent import monkey
from gevent.threadpool import ThreadPool

P = ParamSpec("P")
R = TypeVar("R")

#: More would not search faster, and each thread that holds the interpreter lock makes the event loop wait for it.
SEARCH_THREADS = 2


def offload(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return `function(*args, **kwargs)`. Under gevent it runs in a native thread of the hub's pool."""
    if not monkey.is_module_patched("threading"):
        return function(*args, **kwargs)
    result: R = gevent.get_hub().threadpool.apply(function, args, kwargs)
    return result


class NativeThreads:
    """A pool of native threads for one kind of work, so that logins, which use the hub's pool, do not wait for it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ThreadPool | None = None

    def offload(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `function(*args, **kwargs)`. Under gevent it runs in one of these threads, which start when needed."""
        if not monkey.is_module_patched("threading"):
            return function(*args, **kwargs)
        if self._pool is None:  # not earlier: a fork would lose its threads
            self._pool = ThreadPool(self._size)
        result: R = self._pool.apply(function, args, kwargs)
        return result
