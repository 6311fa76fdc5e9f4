"""Attempts that end without an answer: their prompts are released, rescheduled or failed.

release      the worker must stop, or the provider is unavailable: the attempt does not count, the turn is kept
reschedule   the attempt failed: the next one follows after a backoff, with a new turn
fail         it was the last attempt, or another could not succeed
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from shared.db.engine import Sessions, cause, is_unavailable
from shared.errors import ProviderError, ProviderOverloadedError, ProviderUnavailableError
from shared.messaging import announcements
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue
from shared.prompts import claims
from shared.prompts.claims import Claim
from shared.prompts.feed import FinishedPrompt
from worker import attempt_metrics
from worker.log_context import log_context
from worker.provider_status import ProviderStatus
from worker.sanitize import public_message

log = structlog.get_logger(__name__)

MAX_RETRY_BACKOFF = timedelta(minutes=5)
#: Enough for the shortest backoff to reach the longest; more would overflow a timedelta.
MAX_DOUBLINGS = 30
#: After how many refusals a prompt loses its turn for a while: by an overloaded provider, which refuses any prompt
#: beyond its capacity, and by one that has been available to other prompts since.
MAX_OVERLOADS, MAX_REFUSALS = 3, 1


@dataclass(frozen=True)
class Failures:
    """Ends attempts without an answer.

    Args:
        route: The model route whose prompts these are.
        grace: See SUBMIT_GRACE_SECONDS.
        retry_backoff: The pause after a first failed attempt; it doubles with each, up to MAX_RETRY_BACKOFF.
        provider_patience: See PROVIDER_PATIENCE_SECONDS.
        time_limit: GENERATION_TIMEOUT_SECONDS.
    """

    sessions: Sessions
    announcer: Announcer
    queue: Queue
    provider_status: ProviderStatus
    route: str
    grace: timedelta
    retry_backoff: timedelta
    provider_patience: timedelta
    time_limit: timedelta

    def release(self, held: Sequence[Claim]) -> None:
        """Release claims: the worker must stop, or the database was unavailable. The attempts do not count."""
        try:
            with self.sessions.begin() as session:
                released = claims.release(session, held, grace=self.grace)
        except SQLAlchemyError as failure:
            log_database_error("claims not released, the reaper will queue the prompts again", failure)
        else:
            self.queue.wake(self.route, released)
        for claim in held:
            self.provider_status.record_inconclusive(claim)

    def record_lost(self, claim: Claim) -> None:
        """Record a claim that was lost, and what its attempt has used."""
        attempt_metrics.count_lost_claim(claim.id)
        used = claim.meter.used
        try:
            with self.sessions.begin() as session:
                claims.settle(session, [claim])
        except SQLAlchemyError as failure:
            tokens = {"prompt_tokens": used.used_prompt_tokens, "completion_tokens": used.used_completion_tokens}
            log_database_error("usage of an attempt not recorded", failure, prompt_id=claim.id, **tokens)

    def handle(self, held: Sequence[Claim], error: Exception, *, of_generator: bool = False) -> None:
        """Release, reschedule or fail the prompts of these claims, whose attempt ended with this error.

        `of_generator` says whether the generator raised it, so that it may tell that the provider is available.
        """
        if isinstance(error, ProviderUnavailableError):
            self._wait_for_provider(held, error)
            return
        if is_unavailable(error):
            log.warning("postgres unavailable, attempts interrupted", prompts=len(held), error=cause(error))
            self.release(held)
            return
        for claim in held:
            attempt_metrics.count_failed(error)
            with log_context(claim):
                log.warning("attempt failed", error=type(error).__name__, **_reason(error))
                self._end_attempt(claim, error)
            if of_generator and isinstance(error, ProviderError) and not error.retryable:
                self.provider_status.record_available(claim)
            else:
                self.provider_status.record_inconclusive(claim)

    def _wait_for_provider(self, held: Sequence[Claim], error: ProviderUnavailableError) -> None:
        """Pause the route, or reduce its limit. Its prompts keep their turns.

        The reaper fails those that have waited for too long.
        """
        attempt_metrics.count_failed(error)
        try:
            with self.provider_status.slots_lock, self.sessions.begin() as session:
                self.provider_status.record_unavailable(session, held, error)
                claims.release(session, [claim for claim in held if not _steps_aside(claim, error)], grace=self.grace)
        except SQLAlchemyError as failure:
            log_database_error("provider pause not stored, the reaper will queue the prompts again", failure)
            return
        for claim in held:
            if _steps_aside(claim, error):
                self._end_attempt(claim, error)

    def _end_attempt(self, claim: Claim, error: Exception) -> None:
        try:
            with self.sessions.begin() as session:
                finished = self._fail_or_reschedule(session, claim, error)
        except SQLAlchemyError as failure:
            log_database_error("attempt interrupted by the database, the reaper will queue the prompt again", failure)
            return
        if finished is not None:
            attempt_metrics.count_finished([finished])
            announcement = announcements.from_finished(finished, claim.traceparent)
            self.announcer.announce((finished.user_id, announcement))

    def _fail_or_reschedule(self, session: Session, claim: Claim, error: Exception) -> FinishedPrompt | None:
        counts = not isinstance(error, ProviderUnavailableError) or claim.waited() >= self.provider_patience
        if counts and (claim.final or (isinstance(error, ProviderError) and not error.retryable)):
            return claims.fail(session, claim, public_message(error, self.time_limit))
        claims.reschedule(session, claim, self._retry_delay(claim.attempt), counts=counts)
        return None

    def _retry_delay(self, attempt: int) -> timedelta:
        # Jitter, so that a burst does not return as one (AWS Architecture Blog, "Exponential Backoff And Jitter").
        longest = min(self.retry_backoff * 2 ** min(attempt - 1, MAX_DOUBLINGS), MAX_RETRY_BACKOFF)
        return timedelta(seconds=longest.total_seconds() * random.uniform(0.5, 1))  # noqa: S311  # nosec B311


def _reason(error: Exception) -> dict[str, object]:
    """What the log says of a failed attempt: a provider's reason, or where our code or a custom generator failed.

    Not the provider's own words, which may quote the prompt.
    """
    if isinstance(error, ProviderError):
        return {"detail": public_message(error).partition(": ")[0]}
    return {"exc_info": True}


def log_database_error(event: str, error: SQLAlchemyError, **fields: object) -> None:
    """Log that a statement failed: in one line if the database is unavailable, else with the traceback."""
    log.warning(event, **fields, error=cause(error), exc_info=not is_unavailable(error))


def _steps_aside(claim: Claim, error: ProviderUnavailableError) -> bool:
    """Whether a refused prompt loses its turn for a while.

    It was refused before, and its provider has been available since, so the provider may refuse only this prompt. If it
    kept its turn, it would pause the route for all others, or reduce its limit, again and again.
    """
    refusals = MAX_OVERLOADS if isinstance(error, ProviderOverloadedError) else MAX_REFUSALS
    return claim.attempt > refusals and claim.probe is None
