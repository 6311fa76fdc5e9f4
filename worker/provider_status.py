"""Recording whether the provider is available, for all workers: see `shared/prompts/provider_pause.py`."""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared import timestamps
from shared.db.engine import Sessions, cause
from shared.errors import ProviderOverloadedError, ProviderUnavailableError
from shared.messaging.queue import MAX_PROMPTS_PER_MESSAGE, Queue
from shared.prompts import concurrency, provider_pause
from shared.prompts.claims import Claim
from shared.telemetry import metrics
from worker.sanitize import public_message

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ProviderStatus:
    """Pauses a route while its provider is unavailable, and ends the pause.

    Args:
        max_pause: Bounds what a provider asks for with Retry-After.
        ceiling: The route's `concurrency`, or OPENAI_CONCURRENCY.
        slots_lock: Held while prompts are claimed or the limit is reduced. Both take the lock of the route in
            PostgreSQL. The threads of a process wait for this lock first, so that none waits with a connection.
    """

    sessions: Sessions
    queue: Queue
    route: str
    max_pause: timedelta
    ceiling: int | None = None
    slots_lock: threading.Lock = field(default_factory=threading.Lock)

    def record_available(self, claim: Claim) -> None:
        """Record that the provider has answered. If the claim is a probe, that ends the pause."""
        if claim.probe is None:
            return
        try:
            with self.sessions.begin() as session:
                if not provider_pause.end(session, self.route, claim.probe):
                    return
                waiting = concurrency.count_ready(
                    session, self.route, ceiling=self.ceiling, limit=MAX_PROMPTS_PER_MESSAGE
                )
        except SQLAlchemyError as error:
            log.warning("provider pause not ended, another probe follows", error=cause(error))
            return
        log.info("provider available again", route=self.route, waiting=waiting)
        self.queue.wake(self.route, waiting)

    def record_inconclusive(self, claim: Claim) -> None:
        """Record that the attempt ended without asking the provider. If it was a probe, the next claim is another."""
        if claim.probe is None:
            return
        try:
            with self.sessions.begin() as session:
                provider_pause.probe_again(session, self.route, claim.probe)
        except SQLAlchemyError as error:
            log.warning("probe not replaced, another follows after the lease", error=cause(error))
            return
        self.queue.wake(self.route, 1)

    def record_unavailable(self, session: Session, held: Sequence[Claim], error: ProviderUnavailableError) -> None:
        """Pause the route, because the provider was unavailable for these prompts.

        If it refuses because of its load while it answers others, fewer prompts at a time may succeed. So the limit of
        the route is reduced, and it is paused only if the provider asks for that.
        """
        if isinstance(error, ProviderOverloadedError) and held:
            is_refusing_all = self._reduce(session, held)
            is_probe = any(claim.probe is not None for claim in held)
            if not is_refusing_all and not is_probe and error.retry_after is None:
                return
        self._pause(session, held, error)

    def _reduce(self, session: Session, held: Sequence[Claim]) -> bool:
        """Reduce the limit of the route. Returns whether the provider refuses even a lone prompt.

        Of a burst that it refuses, the last prompt runs alone, too. So only one that was claimed later tells.
        """
        reduction = concurrency.reduce(session, self.route, refused=len(held), claimed_at=held[0].claimed_at)
        if reduction.is_new:
            metrics.concurrency_reductions.inc()
            log.warning("provider overloaded, fewer prompts at a time", route=self.route, limit=int(reduction.limit))
        return reduction.is_new and reduction.running == 0

    def _pause(self, session: Session, held: Sequence[Claim], error: ProviderUnavailableError) -> None:
        detail = public_message(error)
        asked = None if error.retry_after is None else timedelta(seconds=error.retry_after)
        pause = provider_pause.pause(
            session,
            self.route,
            detail,
            retry_after=None if asked is None else min(asked, self.max_pause),
            jitter=random.uniform(1, 1.5),  # noqa: S311  # nosec B311
            probe=next((claim.probe for claim in held if claim.probe is not None), None),
        )
        if pause.is_new:  # many prompts may find the provider unavailable at the same moment
            metrics.provider_pauses.labels(error.cause).inc()
            log.warning(
                "provider unavailable, prompts wait",
                route=self.route,
                error=type(error).__name__,
                detail=detail,
                seconds=round(pause.seconds, 1),
                next_attempt_at=timestamps.rfc3339(pause.next_attempt_at),
            )
