"""The emptier: removes the texts, answers and vectors of old prompts, and old files and batches (RETENTION_DAYS)."""

from collections.abc import Callable
from datetime import timedelta

import structlog

from shared.batches import batches, files
from shared.db.engine import Sessions
from shared.prompts import retention

log = structlog.get_logger(__name__)


class Emptier:
    """Empties prompts in batches, each in a transaction of its own. Several emptiers may run at once.

    It remembers the id up to which all prompts are empty, so only its first round reads all old prompts.

    Args:
        request_sealing: Has a worker rebuild a user's segments without the vectors that were removed.
    """

    def __init__(self, sessions: Sessions, days: int, request_sealing: Callable[[int], object]) -> None:
        self._sessions = sessions
        self._retention = timedelta(days=days)
        self._request_sealing = request_sealing
        self._complete = 0

    def round(self) -> None:
        """Empty all prompts that have become old, and delete such files and batches."""
        after, count, unsealed = self._complete, 0, set[int]()
        is_complete, more = True, True
        while more:
            with self._sessions.begin() as session:
                batch = retention.empty_batch(session, self._retention, after=after)
            if is_complete:
                self._complete = batch.complete
            is_complete = is_complete and batch.complete == batch.reached
            after, more, count = batch.reached, batch.more, count + batch.prompts
            unsealed.update(batch.unsealed)
        for user_id in unsealed:
            self._request_sealing(user_id)
        with self._sessions.begin() as session:
            batches.purge_old(session, self._retention)
            files.purge_old(session, self._retention)
        if count:
            log.info("old prompts emptied", prompts=count)
