"""BACKLOG_LIMIT: how many prompts may be unfinished. Beyond that submissions are refused rather than stored up.

Lines of batches do not count: they have limits of their own, and come after all other prompts.
"""

import time

from sqlalchemy import text

from shared.db.engine import Executor
from shared.db.models import COUNTED

#: How often the backlog is counted while it is full.
RECOUNT_SECONDS = 0.25

_COUNT = text(f"SELECT count(*) FROM (SELECT FROM prompts WHERE {COUNTED} LIMIT :limit) AS unfinished")  # noqa: S608  # nosec B608


class Backlog:
    """The unfinished prompts of all users, as far as this process must know.

    It counts them in the database only after it has admitted a tenth of the limit, so each of several API processes may
    exceed the limit by a tenth. Not safe for concurrent use.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._room = 0
        self._paused_until = 0.0

    @property
    def is_full(self) -> bool:
        """Whether no prompt can be admitted at the moment."""
        return self._room <= 0 and self._is_paused

    def room(self, executor: Executor, wanted: int) -> int:
        """How many of the `wanted` prompts may be admitted."""
        if self._room < wanted and not self._is_paused:
            unfinished = executor.execute(_COUNT, {"limit": self._limit}).scalar_one()
            self._room = max(0, min(self._limit - unfinished, max(wanted, self._limit // 10)))
            if self._room < wanted:
                self._paused_until = time.monotonic() + RECOUNT_SECONDS
        return min(wanted, self._room)

    def added(self, count: int) -> None:
        """Record that `count` prompts were admitted."""
        self._room -= count

    @property
    def _is_paused(self) -> bool:
        return time.monotonic() < self._paused_until
