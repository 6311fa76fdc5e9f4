"""One line of log for many failures with one cause, as while PostgreSQL is unavailable."""

import time

import structlog

from shared.db.engine import cause

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 60.0


class OutageLog:
    """Logs the first failure, then one in INTERVAL_SECONDS, with the number of those in between.

    Polls and a thousand endpoints fail at the same time and again every half a second. Use it in one thread.
    """

    def __init__(self, message: str) -> None:
        self._message = message
        self._next_line = 0.0
        self._count = 0

    def failed(self, error: BaseException) -> None:
        """Note a failure of the database."""
        self._count += 1
        if time.monotonic() >= self._next_line:
            log.warning(self._message, error=cause(error), failures=self._count)
            self._next_line, self._count = time.monotonic() + INTERVAL_SECONDS, 0
