"""The reaper: enqueues overdue prompts again and fails those without attempts left.

It runs on every worker host. Any number of reapers may run at once, so there is no single point of failure.
"""

from collections import Counter
from datetime import timedelta

import structlog

from shared.db.engine import Sessions
from shared.messaging import announcements
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue
from shared.prompts import overdue
from shared.settings import Settings
from shared.telemetry import metrics

log = structlog.get_logger(__name__)

#: How many prompts one round enqueues. With that many messages waiting, an overdue prompt is behind, not lost.
MAX_PROMPTS_PER_ROUND = 1_000


class Reaper:
    """Finds overdue prompts: those of lapsed leases, ended pauses and lost messages."""

    def __init__(self, settings: Settings, sessions: Sessions, queue: Queue, announcer: Announcer) -> None:
        self._grace = settings.submit_grace
        self._interval = timedelta(seconds=settings.reaper_seconds)
        self._sessions = sessions
        self._queue = queue
        self._announcer = announcer

    def round(self) -> None:
        """Fail the prompts without attempts left, and enqueue the others that are overdue."""
        self._fail_exhausted()
        self._requeue()

    def _requeue(self) -> None:
        waiting = self._queue.length()
        if waiting is None or waiting >= MAX_PROMPTS_PER_ROUND:
            return
        with self._sessions.begin() as session:
            rescued = overdue.requeue(
                session,
                grace=self._grace,
                limit=MAX_PROMPTS_PER_ROUND - waiting,
                lost_after=self._interval if waiting == 0 else None,
            )
        if rescued:
            kinds = Counter(map(str, rescued.values()))
            log.info("overdue prompts enqueued", prompts=len(rescued), **kinds)
            with metrics.fork_lock:
                for kind, count in kinds.items():
                    metrics.rescues.labels(kind).inc(count)
        self._queue.enqueue_each(rescued)

    def _fail_exhausted(self) -> None:
        with self._sessions() as session:
            exhausted = overdue.exhausted(session, limit=MAX_PROMPTS_PER_ROUND)
        for prompt_id in exhausted:
            with self._sessions.begin() as session:
                finished = overdue.fail_exhausted(session, prompt_id)
            if finished is not None:
                log.warning("prompt failed, no attempts left", prompt_id=prompt_id, request_id=finished.request_id)
                with metrics.fork_lock:
                    metrics.given_up.inc()
                    metrics.finished.labels(finished.change).inc()
                self._announcer.announce((finished.user_id, announcements.from_finished(finished)))
