"""The reaper: does what a dead worker or a lost message has left undone.

It runs on every worker host. Any number of reapers may run at once, so there is no single point of failure.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import Sessions, cause
from shared.messaging import announcements
from shared.messaging.announcements import Announcer
from shared.messaging.queue import MAX_PROMPTS_PER_MESSAGE, Queue
from shared.prompts import concurrency, overdue, provider_pause, scheduling
from shared.prompts.feed import FinishedPrompt
from shared.search import missing_vectors
from shared.settings import Settings
from shared.telemetry import metrics

log = structlog.get_logger(__name__)

#: How long the reaper waits for a user's lock.
_LOCK_TIMEOUT = text("SET LOCAL lock_timeout = '500ms'")
#: How often the reaper checks whether a provider's pause is over.
PROBE_SECONDS = 1.0
#: How many prompts one step of a round changes.
MAX_PROMPTS_PER_ROUND = 1_000


class Reaper:
    """Queues prompts of lapsed leases, ends backoffs, fails what cannot be answered, and replaces lost wake-ups.

    It also requests the backfill of vectors.
    """

    def __init__(self, settings: Settings, sessions: Sessions, queue: Queue, announcer: Announcer) -> None:
        self._grace = settings.submit_grace
        self._patience = settings.provider_patience
        self._running_limit = settings.user_running_limit
        self._ceilings = {route: model.concurrency_ceiling for route, model in settings.models.items()}
        self._sessions = sessions
        self._queue = queue
        self._announcer = announcer

    def round(self) -> None:
        """Do each step, although another one fails."""
        steps = (
            self._replace_lost_messages,
            self._queue_lapsed,
            self._fail_exhausted,
            self._grant_turns,
            self._fail_waiting_too_long,
            self._fail_without_model,
            self._request_backfill,
        )
        for step in steps:
            try:
                step()
            except SQLAlchemyError as error:
                log.warning("reaper step failed", step=step.__name__.strip("_"), error=cause(error))

    def _queue_lapsed(self) -> None:
        with self._sessions.begin() as session:
            lapsed = overdue.queue_lapsed(session, grace=self._grace, limit=MAX_PROMPTS_PER_ROUND)
        self._wake(lapsed, "lapsed")

    def _grant_turns(self) -> None:
        """Give turns to prompts whose backoff is over, and to those of the release before the fair queue."""
        with self._sessions() as session:
            user_ids = scheduling.users_without_turn(session)
        for user_id in user_ids:
            try:
                self._grant_turns_to(user_id)
            except SQLAlchemyError as error:  # somebody holds the user's lock for long; all others go on
                log.warning("no turns granted to a user", user_id=user_id, error=cause(error))

    def _grant_turns_to(self, user_id: int) -> None:
        with self._sessions.begin() as session:
            session.execute(_LOCK_TIMEOUT)
            granted = scheduling.grant_turns(session, [user_id], grace=self._grace, running_limit=self._running_limit)
        self._wake(granted, "paused")

    def _replace_lost_messages(self, routes: Iterable[str] | None = None) -> None:
        """Wake up workers of each model route whose prompts can be claimed and whose queue is empty.

        This also starts the probe after a provider's pause, if `start_probes` has not.
        """
        if not self._queue.is_available:
            return
        empty = [route for route in routes or self._ceilings if self._queue.length(route) == 0]
        ready = {}
        with self._sessions() as session:
            for route in empty:
                ready[route] = concurrency.count_ready(
                    session, route, ceiling=self._ceilings[route], limit=MAX_PROMPTS_PER_MESSAGE
                )
        self._wake(ready, "lost")

    def start_probes(self) -> None:
        """Wake up a worker for the probe after each provider's pause: no message is sent when a pause is over."""
        with self._sessions() as session:
            over = [route for route in provider_pause.find_over(session) if route in self._ceilings]
        if over:
            self._replace_lost_messages(over)

    def _wake(self, prompts: Mapping[str, int], kind: str) -> None:
        count = sum(prompts.values())
        if not count:
            return
        log.info("workers woken up", kind=kind, prompts=count)
        with metrics.fork_lock:
            metrics.rescues.labels(kind).inc(count)
        for route, number in prompts.items():
            self._queue.wake(route, number)

    def _fail_exhausted(self) -> None:
        with self._sessions() as session:
            exhausted = overdue.exhausted(session, limit=MAX_PROMPTS_PER_ROUND)
        for prompt_id in exhausted:
            with self._sessions.begin() as session:
                finished = overdue.fail_exhausted(session, prompt_id)
            if finished is not None:
                self._announce_failed([finished], "no attempts left")

    def _fail_waiting_too_long(self) -> None:
        with self._sessions.begin() as session:
            finished = overdue.fail_waiting_too_long(session, self._patience, limit=MAX_PROMPTS_PER_ROUND)
        self._announce_failed(finished, "provider unavailable for too long")

    def _fail_without_model(self) -> None:
        with self._sessions.begin() as session:
            finished = overdue.fail_without_model(
                session, list(self._ceilings), self._patience, limit=MAX_PROMPTS_PER_ROUND
            )
        self._announce_failed(finished, "no such model")

    def _request_backfill(self) -> None:
        """Have a worker embed prompts that were completed while the embedder failed."""
        with self._sessions() as session:
            is_due = missing_vectors.is_due(session)
        if is_due:
            self._queue.request_backfill()

    def _announce_failed(self, finished: list[FinishedPrompt], reason: str) -> None:
        for each in finished:
            log.warning("prompt failed", reason=reason, prompt_id=each.prompt_id, request_id=each.request_id)
        with metrics.fork_lock:
            metrics.given_up.inc(len(finished))
            for change, number in Counter(each.change for each in finished).items():
                metrics.finished.labels(change).inc(number)
        self._announcer.announce(*((each.user_id, announcements.from_finished(each)) for each in finished))
