"""Work that concurrent callers do together: while one group is at work, the next one gathers.

There is no timer. Whoever comes alone goes at once and waits for nobody; the busier it is, the larger the groups.
(What databases call group commit: DeWitt et al., 1984, "Implementation Techniques for Main Memory Database Systems".)
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from shared.errors import OverloadedError

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Place(Generic[Item, Result]):
    """A caller's place in the queue."""

    __slots__ = ("is_done", "item", "outcome", "turn")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.outcome: Result | BaseException | None = None
        self.is_done = False
        self.turn = threading.Lock()  # free once there is an outcome, or once it is this caller's turn to lead
        self.turn.acquire()


class GroupCommit(Generic[Item, Result]):
    """Calls `work` with the items of concurrent callers, one call at a time.

    Args:
        work: Gives each item's outcome, in order: a result, or the exception to raise for that caller. What it raises
            itself, each caller gets.
        largest: How many items a call may have.
        most_waiting: How many callers may wait besides.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Sequence[Result | Exception]], *, largest: int, max_waiting: int
    ) -> None:
        self._work = work
        self._largest = largest
        self._max_waiting = max_waiting
        self._waiting: deque[_Place[Item, Result]] = deque()
        self._is_busy = False
        self._lock = threading.Lock()

    @property
    def is_full(self) -> bool:
        """Whether as many wait as may."""
        return len(self._waiting) >= self._max_waiting

    def __call__(self, item: Item) -> Result:
        """The result for this item.

        Raises:
            OverloadedError: too many callers wait already.
        """
        place: _Place[Item, Result] = _Place(item)
        with self._lock:
            if self.is_full:
                raise OverloadedError
            self._waiting.append(place)
            leads, self._is_busy = not self._is_busy, True
        if not leads:
            self._wait(place)
        if not place.is_done:
            self._lead()
        if isinstance(place.outcome, BaseException):
            raise place.outcome
        return place.outcome  # type: ignore[return-value]

    def _wait(self, place: _Place[Item, Result]) -> None:
        """Waits for an outcome, or for the turn to lead. Whoever is made to leave meanwhile hands the turn on."""
        try:
            place.turn.acquire()
        except BaseException:
            with self._lock:
                was_next = bool(self._waiting) and self._waiting[0] is place
                if place in self._waiting:
                    self._waiting.remove(place)
                has_turn = was_next and place.turn.acquire(blocking=False)
            if has_turn:
                self._have_next_lead([])
            raise

    def _lead(self) -> None:
        """Does the work of the next group, whose first place is the caller's own, and has the one after it begin."""
        with self._lock:
            group = [self._waiting.popleft() for _ in range(min(self._largest, len(self._waiting)))]
        try:
            for place, outcome in zip(group, self._work([place.item for place in group]), strict=True):
                place.outcome = outcome
        except BaseException as error:
            for place in group:
                place.outcome = error
        for place in group:
            place.is_done = True
        self._have_next_lead(group[1:])

    def _have_next_lead(self, done: list[_Place[Item, Result]]) -> None:
        """Wakes up these, who have their outcomes, and whoever is to lead next."""
        with self._lock:
            self._is_busy = bool(self._waiting)
            following = [self._waiting[0]] if self._waiting else []
            for place in (*following, *done):
                place.turn.release()
