"""The driver of operations on many prompts: it changes their groups (`shared/operators/steps.py`).

It runs on every worker host, as the reaper does, and everything it needs is in the database: any driver resumes
an interrupted operation once its lease has lapsed.
"""

import time
from collections import Counter

import structlog

from shared.db.engine import Sessions
from shared.messaging import announcements
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue
from shared.operators import steps
from shared.operators.steps import GroupResult, LeasedOperation, OperationLostError, RetryRules
from shared.prompts import scheduling
from shared.settings import Settings
from shared.telemetry import metrics

log = structlog.get_logger(__name__)

#: How often a driver looks for an operation.
INTERVAL_SECONDS = 1.0
#: After this time it is the next operation's turn.
SLICE_SECONDS = 2.0


class OperationDriver:
    """Carries out operations. Any number of drivers may run at once."""

    def __init__(self, settings: Settings, sessions: Sessions, queue: Queue, announcer: Announcer) -> None:
        self._rules = RetryRules(
            settings.submit_grace,
            settings.max_attempts,
            settings.user_running_limit,
            settings.user_monthly_tokens,
            list(settings.models),
        )
        self._lease = settings.lease
        self._sessions = sessions
        self._queue = queue
        self._announcer = announcer

    def round(self) -> None:
        """Change the next groups of each operation that is due."""
        deadline = time.monotonic() + SLICE_SECONDS
        while self.step() and time.monotonic() < deadline:
            pass

    def step(self) -> bool:
        """Change some groups of the operation that is due the longest. Returns whether there was one."""
        with self._sessions.begin() as session:
            operation = steps.claim(session, self._lease)
        if operation is None:
            return False
        try:
            self._do_groups(operation)
        except OperationLostError:
            log.info("operation taken by another driver or undone", operation_id=operation.id)
        return True

    def _do_groups(self, operation: LeasedOperation) -> None:
        deadline, is_last = time.monotonic() + SLICE_SECONDS, False
        while not is_last and time.monotonic() < deadline:
            with self._sessions.begin() as session:
                result = steps.do_group(session, operation, self._rules, self._lease)
            self._publish(result)
            is_last = result.is_last
        if is_last:
            log.info("operation ended", operation_id=operation.id, action=operation.action)
            return
        with self._sessions.begin() as session:
            steps.release(session, operation)

    def _publish(self, result: GroupResult) -> None:
        """Wake up workers for claimable prompts, and announce finished ones."""
        claimable = Counter(result.claimable)
        if result.finished:
            with metrics.fork_lock:
                metrics.finished.labels(result.finished[0].change).inc(len(result.finished))
            self._announcer.announce(*((each.user_id, announcements.from_finished(each)) for each in result.finished))
            claimable += self._grant_next_turns(result)
        for route, count in claimable.items():
            self._queue.wake(route, count)

    def _grant_next_turns(self, result: GroupResult) -> Counter[str]:
        """With USER_RUNNING_LIMIT: give turns to the users' next prompts, in place of those that have ended."""
        if self._rules.running_limit is None:
            return Counter()
        user_ids = sorted({each.user_id for each in result.finished})
        with self._sessions.begin() as session:
            granted = scheduling.grant_turns(
                session, user_ids, grace=self._rules.grace, running_limit=self._rules.running_limit
            )
        return Counter(granted)
