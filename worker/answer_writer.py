"""Storing answers: their prompts are completed, together with their vectors, and announced."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import cause, is_unavailable
from shared.messaging import announcements
from shared.messaging.announcements import Announcer
from shared.prompts import claims
from shared.prompts.answer import Answer
from shared.prompts.claims import Claim
from shared.prompts.completion import Outcome
from shared.prompts.feed import FinishedPrompt
from shared.search.store import VectorStore
from shared.search.vector_log import LogRow
from shared.telemetry import tracing
from worker import attempt_metrics
from worker.embedding import EmbeddedPrompt
from worker.failures import Failures, log_database_error
from worker.leases import Leases
from worker.route_slots import RouteSlots

log = structlog.get_logger(__name__)

AnsweredPrompt = tuple[EmbeddedPrompt, Answer]

#: The shortest and the longest pause before an answer is stored again.
STORE_RETRY_SECONDS = (0.5, 1.0)


@dataclass(frozen=True)
class AnswerWriter:
    """Stores the answers of prompts, which completes them.

    Args:
        autocommit_engine: For single statements.
        store: This process's own search indexes.
        lease: How long answers are kept while Postgres is unavailable.
        embed: Embeds prompts whose users have another embedder by now.
    """

    autocommit_engine: Engine
    announcer: Announcer
    store: VectorStore
    leases: Leases
    lease: timedelta
    slots: RouteSlots
    failures: Failures
    embed: Callable[[Sequence[Claim]], list[EmbeddedPrompt]]

    def complete(self, answered: Sequence[AnsweredPrompt]) -> list[int]:
        """Complete and announce the prompts: together, or, if that fails, each by itself. Returns their ids."""
        if not answered:
            return []
        try:
            return self._store_when_available(answered)
        except Exception as error:
            if isinstance(error, SQLAlchemyError) and (len(answered) == 1 or is_unavailable(error)):
                log_database_error(
                    "attempts interrupted by the database, the reaper will queue the prompts again",
                    error,
                    prompts=len(answered),
                )
                return []
            if len(answered) == 1:
                self.failures.handle([answered[0][0].claim], error)
                return []
        return [completed for each in answered for completed in self.complete([each])]

    def _store_when_available(self, answered: Sequence[AnsweredPrompt]) -> list[int]:
        """Complete and announce the prompts. While Postgres is unavailable, try again for as long as a lease.

        An answer that was paid for is not thrown away, and no attempt is lost, because a server is being replaced. If
        a reaper is faster, the claim no longer holds, and nothing is stored.
        """
        deadline, is_logged = time.monotonic() + self.lease.total_seconds(), False
        while True:
            try:
                return self._store(answered)
            except SQLAlchemyError as error:
                if not is_unavailable(error) or time.monotonic() >= deadline or self.leases.is_stopping:
                    raise
                if not is_logged:
                    log.warning("postgres unavailable, answers kept", prompts=len(answered), error=cause(error))
                is_logged = True
            time.sleep(random.uniform(*STORE_RETRY_SECONDS))  # noqa: S311  # nosec B311

    def _store(self, answered: Sequence[AnsweredPrompt]) -> list[int]:
        """Complete and announce the prompts; those whose users have another embedder by now, in another round."""
        completed: list[int] = []
        while answered:
            held = {prompt.claim.id: prompt.claim for prompt, _ in answered}
            outcomes = {prompt.claim.id: _outcome(prompt, answer) for prompt, answer in answered}
            with (
                tracing.spans("complete", *(claim.traceparent for claim in held.values()), prompts=len(held)),
                self.autocommit_engine.connect() as connection,
            ):
                finished, others, is_reduced = claims.complete(connection, list(outcomes.values()))
            if is_reduced:
                generated = (each.prompt_id for each in finished if each.answer.cached_from is None)
                self.slots.record_answers([held[prompt_id] for prompt_id in generated])
            if is_reduced or any(claim.is_limited for claim in held.values()):
                self.slots.fill()
            self._announce(finished, held)
            completed += [each.prompt_id for each in finished]
            for each in finished:
                held[each.prompt_id].meter.reset()  # it is recorded
            for prompt_id in held.keys() - {each.prompt_id for each in finished} - others.keys():
                self.failures.record_lost(held[prompt_id])
            self._apply_vectors(finished, outcomes)
            attempt_metrics.count_finished(finished)
            moved = [replace(claim, embedder=others[claim.id]) for claim in held.values() if claim.id in others]
            answered = [(each, outcomes[each.claim.id].answer) for each in self.embed(moved)]
        return completed

    def _announce(self, finished: Sequence[FinishedPrompt], held: Mapping[int, Claim]) -> None:
        pairs = [(each, held[each.prompt_id].traceparent) for each in finished]
        with tracing.spans("announce", *(traceparent for _, traceparent in pairs)):
            self.announcer.announce(*((each.user_id, announcements.from_finished(each, t)) for each, t in pairs))
        for each in finished:
            log.info(
                "completed",
                seq=each.seq,
                prompt_id=each.prompt_id,
                request_id=each.request_id,
                attempt=each.attempt,
                seconds=round((each.at - each.created_at).total_seconds(), 3),
            )

    def _apply_vectors(self, finished: Sequence[FinishedPrompt], outcomes: Mapping[int, Outcome]) -> None:
        """Add the vectors to this process's own index, if it has one of the user."""
        rows: dict[int, list[LogRow]] = {}
        for each in finished:
            vector = outcomes[each.prompt_id].vector
            if vector is not None:
                rows.setdefault(each.user_id, []).append(LogRow(each.seq, each.prompt_id, vector))
        for user_id, of_user in rows.items():
            self.store.apply(user_id, of_user)


def _outcome(prompt: EmbeddedPrompt, answer: Answer) -> Outcome:
    return Outcome(
        prompt.claim.id,
        prompt.claim.attempt,
        embedder=None if prompt.vector is None else prompt.embedder.name,
        vector=None if prompt.vector is None else prompt.vector.tobytes(),
        expected_embedder=prompt.claim.embedder,
        used=prompt.claim.meter.used,
        answer=answer,
    )
