"""Doing the work of concurrent callers together: while one group is processed, the next one gathers.

A lone caller goes at once and waits for nobody; the busier the process, the larger the groups. If callers came during
a group, the next one gathers for as long as that took. Otherwise a process at half of its load works on groups of two
or three, each as dear as one of twenty, and leaves nothing to the others that share its cores.
(Databases call this group commit: DeWitt et al., 1984, "Implementation Techniques for Main Memory Database Systems".)
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from shared.errors import OverloadedError

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Waiter(Generic[Item, Result]):
    """A caller in the queue."""

    __slots__ = ("is_done", "item", "outcome", "since", "wake_up")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.since = time.monotonic()
        self.outcome: Result | BaseException | None = None
        self.is_done = False
        self.wake_up = threading.Lock()  # released once there is an outcome, or once this caller must lead
        self.wake_up.acquire()


class GroupCommit(Generic[Item, Result]):
    """Calls `work` with the items of concurrent callers, one call at a time.

    The first caller in the queue leads: it does the work of its group, and then wakes up the next leader.

    Args:
        work: Returns each item's outcome, in order: a result, or the exception to raise for that caller. If it raises
            itself, each caller of the group gets that exception.
        max_size: How many items a call may have.
        max_waiting: How many callers may wait for the next call.
        max_pause: How many seconds after a group the next one gathers at most.
        max_wait: If a whole group waits, and its first caller for this many seconds, nobody else may wait: many may
            come at once, but not for long.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        max_size: int,
        max_waiting: int,
        max_pause: float = 0.0,
        max_wait: float = math.inf,
    ) -> None:
        self._work = work
        self._max_size = max_size
        self._max_waiting = max_waiting
        self._max_pause = max_pause
        self._max_wait = max_wait
        self._pause_until = 0.0  # by time.monotonic()
        self._waiting: deque[_Waiter[Item, Result]] = deque()
        self._is_busy = False
        self._lock = threading.Lock()

    @property
    def is_full(self) -> bool:
        """Whether no other caller may wait."""
        count = len(self._waiting)
        if count >= self._max_waiting:
            return True
        if count < self._max_size:
            return False  # however long a group takes, these are the next one
        try:
            first = self._waiting[0]
        except IndexError:  # the next group has started meanwhile
            return False
        return time.monotonic() - first.since >= self._max_wait

    def __call__(self, item: Item) -> Result:
        """The result for this item.

        Raises:
            OverloadedError: too many callers wait already.
        """
        waiter: _Waiter[Item, Result] = _Waiter(item)
        with self._lock:
            if self.is_full:
                raise OverloadedError
            self._waiting.append(waiter)
            leads, self._is_busy = not self._is_busy, True
        if not leads:
            self._wait(waiter)
        if not waiter.is_done:
            self._lead()
        if isinstance(waiter.outcome, BaseException):
            raise waiter.outcome
        return waiter.outcome  # type: ignore[return-value]

    def _wait(self, waiter: _Waiter[Item, Result]) -> None:
        """Wait for an outcome, or to lead, and then for the end of the pause.

        A caller that is interrupted as the leader, or as the next one, wakes up another one.
        """
        leads = False
        try:
            waiter.wake_up.acquire()
            leads = not waiter.is_done
            if leads:
                self._pause()
        except BaseException:
            with self._lock:
                was_next = bool(self._waiting) and self._waiting[0] is waiter
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
                must_lead = leads or (was_next and waiter.wake_up.acquire(blocking=False))
            if must_lead:
                self._wake_up([])
            raise

    def _pause(self) -> None:
        """Let the next group gather, unless it is full."""
        seconds = self._pause_until - time.monotonic()
        if seconds > 0 and len(self._waiting) < self._max_size:
            time.sleep(seconds)

    def _lead(self) -> None:
        """Do the work of the next group, whose first caller is this one."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(self._max_size, len(self._waiting)))]
        started = time.monotonic()
        try:
            for waiter, outcome in zip(group, self._work([each.item for each in group]), strict=True):
                waiter.outcome = outcome
        except BaseException as error:
            for waiter in group:
                waiter.outcome = error
        for waiter in group:
            waiter.is_done = True
        ended = time.monotonic()
        self._pause_until = ended + min(ended - started, self._max_pause)
        self._wake_up(group[1:])

    def _wake_up(self, done: list[_Waiter[Item, Result]]) -> None:
        """Wake up the callers that have their outcomes, and the next leader."""
        with self._lock:
            self._is_busy = bool(self._waiting)
            next_leader = [self._waiting[0]] if self._waiting else []
            for waiter in (*next_leader, *done):
                waiter.wake_up.release()
