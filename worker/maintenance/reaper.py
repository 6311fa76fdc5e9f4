"""The reaper: hands out again what is overdue, ends what is out of attempts, forgets what has expired.

It runs in every worker host. Any number of them may run at once, so there is no single point of failure.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import structlog
from celery import bootsteps
from sqlalchemy.exc import SQLAlchemyError

from shared.accounts import logins
from shared.db.engine import Sessions
from shared.messaging import announcements
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue
from shared.prompts import claims, feed, idempotency
from shared.settings import Settings
from shared.telemetry import metrics

log = structlog.get_logger(__name__)

#: How many prompts one round hands out. With that many messages waiting, what is overdue is only behind in the queue.
ROUND = 1_000
PURGE_EVERY_SECONDS = 600


class Reaper:
    """One round every REAPER_SECONDS."""

    def __init__(self, settings: Settings, sessions: Sessions, queue: Queue, announcer: Announcer) -> None:
        self._settings = settings
        self._sessions = sessions
        self._queue = queue
        self._announcer = announcer
        self._next_purge = 0.0

    def run(self, stop: threading.Event) -> None:
        """Rounds until `stop` is set. A failing round is logged, and the next one tries again."""
        while not stop.wait(self._settings.reaper_seconds):
            try:
                self.round()
            except SQLAlchemyError as error:
                log.warning("reaper round failed", error=type(error).__name__)
            except Exception:
                log.exception("reaper round failed")

    def round(self) -> None:
        self._give_up()
        self._hand_out()
        if time.monotonic() >= self._next_purge:
            self._purge()
            self._next_purge = time.monotonic() + PURGE_EVERY_SECONDS

    def _hand_out(self) -> None:
        waiting = self._queue.length()
        if waiting is None or waiting >= ROUND:
            return
        lost_after = timedelta(seconds=self._settings.reaper_seconds) if waiting == 0 else None
        with self._sessions.begin() as session:
            overdue = claims.reap(
                session, grace=self._settings.submit_grace, limit=ROUND - waiting, lost_after=lost_after
            )
        if overdue:
            kinds = Counter(map(str, overdue.values()))
            log.info("handed out again", prompts=len(overdue), **kinds)
            with metrics.fork_lock:
                for kind, count in kinds.items():
                    metrics.rescues.labels(kind).inc(count)
        self._queue.enqueue_each(overdue)

    def _give_up(self) -> None:
        with self._sessions() as session:
            exhausted = claims.exhausted(session, limit=ROUND)
        for prompt_id in exhausted:
            with self._sessions.begin() as session:
                ending = claims.give_up(session, prompt_id)
            if ending is not None:
                log.warning("gave up", prompt_id=prompt_id, request_id=ending.request_id)
                with metrics.fork_lock:
                    metrics.given_up.inc()
                    metrics.finished.labels(ending.change).inc()
                self._announcer.announce((ending.user_id, announcements.from_finished(ending)))

    def _purge(self) -> None:
        with self._sessions.begin() as session:
            feed.purge(session, timedelta(days=self._settings.feed_retention_days))
            idempotency.purge(session)
            logins.purge_expired(session)


def as_bootstep(make_reaper: Callable[[], Reaper]) -> type[bootsteps.StartStopStep]:
    """A part of the Celery worker that runs a reaper in a thread of its main process, for as long as that works."""

    class ReaperStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._stop = threading.Event()

        def start(self, parent: Any) -> None:
            threading.Thread(target=make_reaper().run, args=[self._stop], name="reaper", daemon=True).start()

        def stop(self, parent: Any) -> None:
            self._stop.set()

        terminate = stop

    return ReaperStep
