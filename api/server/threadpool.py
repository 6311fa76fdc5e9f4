"""Keeping the event loop free: what uses much CPU runs in pools of native threads."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import gevent
from gevent import monkey
from gevent.threadpool import ThreadPool

P = ParamSpec("P")
R = TypeVar("R")

#: More would not search faster, and each thread that holds the interpreter lock makes the event loop wait for it.
SEARCH_THREADS = 2


def offload(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return `function(*args, **kwargs)`. Under gevent it runs in a native thread of the hub's pool."""
    return _apply(lambda: gevent.get_hub().threadpool, function, args, kwargs)


class NativeThreads:
    """A pool of native threads for one kind of work, so that logins, which use the hub's pool, do not wait for it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pool: ThreadPool | None = None

    def offload(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return `function(*args, **kwargs)`. Under gevent it runs in one of these threads, which start when needed."""
        return _apply(self._get_pool, function, args, kwargs)

    def _get_pool(self) -> ThreadPool:
        if self._pool is None:  # not earlier: a fork would lose its threads
            self._pool = ThreadPool(self._size)
        return self._pool


def _apply(
    get_pool: Callable[[], ThreadPool], function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> R:
    if not monkey.is_module_patched("threading"):
        return function(*args, **kwargs)
    result, error = get_pool().apply(_outcome, (function, args, kwargs))
    if error is not None:
        try:
            raise error
        finally:
            del error  # its traceback refers to this frame
    return result  # type: ignore[no-any-return]


def _outcome(
    function: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[R | None, BaseException | None]:
    """The result of a call, or what it raised: gevent would also print that, with its traceback, past the log."""
    try:
        return function(*args, **kwargs), None
    except BaseException as error:
        return None, error
