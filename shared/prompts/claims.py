"""What workers do with prompts: each step is one function, and its caller commits.

    claim → (renew …) → complete | fail | reschedule | release

`shared/prompts/overdue.py` has what the reaper does with prompts whose worker did none of these.

An *attempt* is a fence: a worker changes a prompt only `WHERE status = 'processing' AND attempt = …`, so one that wakes
up late changes nothing. All times are the database's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, or_, select, text, tuple_, update
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import Change, Prompt, Status
from shared.prompts.completion import FinishResult, Outcome, finish
from shared.prompts.feed import FinishedPrompt

CLAIMED = (Status.PROCESSING,)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to finish one attempt at a prompt, until its lease lapses."""

    id: int  #: the prompt's
    attempt: int
    final: bool  #: no attempt follows this one
    user_id: int
    prompt_text: str
    websocket: bool
    request_id: str
    embedder: str | None  #: the name of the one whose vectors the user's searches compare; None without vectors
    cache: str | None  #: a `CacheUse`
    history: int  #: how many earlier exchanges the generator is given
    queued_at: datetime  #: when the user last queued it
    age: timedelta  #: since then
    traceparent: str | None  #: of the trace that its spans belong to

    @property
    def idempotency_key(self) -> str:
        """The same for each attempt until the user retries the prompt; different in every installation."""
        return f"promptwire-{self.id}-{self.queued_at.timestamp() * 1000:.0f}"


# It does not wait for the disk: if the server crashes at once, the claim may be forgotten, and the prompt is claimed
# again with the same attempt. Then either of the two may finish it; once, as always.
_CLAIM = text("""
    SET LOCAL synchronous_commit = off;
    UPDATE prompts
    SET status = 'processing', attempt = attempt + 1, due_at = now() + :lease, not_before = NULL
    FROM users
    WHERE users.id = prompts.user_id AND prompts.id IN (
        SELECT id FROM prompts
        WHERE id = ANY(CAST(:prompt_ids AS bigint[])) AND status = 'queued'
            AND (not_before IS NULL OR not_before <= now())
        ORDER BY id
        FOR NO KEY UPDATE
    )
    RETURNING prompts.id, attempt, attempt >= attempt_limit AS final, user_id, prompt_text, websocket, request_id,
        embedder, cache, history, queued_at, now() - queued_at AS age, traceparent
""")


def claim(executor: Executor, prompt_ids: Sequence[int], lease: timedelta) -> list[Claim]:
    """Claim those of the prompts that are queued and not paused, in the order of their ids."""
    rows = executor.execute(_CLAIM, {"prompt_ids": list(prompt_ids), "lease": lease})
    return sorted((Claim(*row) for row in rows), key=lambda claim: claim.id)


def renew(session: Session, held: Iterable[tuple[int, int]], lease: timedelta) -> set[tuple[int, int]]:
    """Extend the leases of these (id, attempt), and return those that still hold."""
    rows = session.execute(
        update(Prompt).where(_holds(held)).values(due_at=func.now() + lease).returning(Prompt.id, Prompt.attempt)
    )
    return {(row.id, row.attempt) for row in rows}


def complete(executor: Executor, outcomes: Sequence[Outcome]) -> FinishResult:
    """Finish those of the prompts whose claims still hold.

    Those whose users' searches compare another embedder's vectors since the claim are left: they need another vector.
    """
    return finish(executor, outcomes, Change.COMPLETED, of=CLAIMED)


def fail(executor: Executor, claim: Claim, error: str) -> FinishedPrompt | None:
    """Finish the prompt as failed. Returns what to announce, or None if the claim no longer holds."""
    finished = finish(executor, [Outcome(claim.id, claim.attempt, error=error)], Change.FAILED, of=CLAIMED).finished
    return finished[0] if finished else None


def reschedule(session: Session, claim: Claim, delay: timedelta) -> bool:
    """Queue the prompt again after a failed attempt, to be claimed after `delay`. Returns whether the claim held."""
    later = func.now() + delay
    changed = session.execute(
        update(Prompt)
        .where(_holds([(claim.id, claim.attempt)]))
        .values(status=Status.QUEUED, due_at=later, not_before=later)
        .returning(Prompt.id)
    )
    return changed.first() is not None


def reschedule_uncounted(session: Session, claim: Claim, delay: timedelta, *, patience: timedelta) -> None:
    """Queue the prompt again because the provider is unavailable; the attempt does not count.

    It can be claimed after `delay`, or as soon as it was queued for `patience`.
    """
    later = _within(patience, delay)
    session.execute(
        update(Prompt)
        .where(_holds([(claim.id, claim.attempt)]))
        .values(status=Status.QUEUED, due_at=later, not_before=later, attempt_limit=Prompt.attempt_limit + 1)
    )


def reschedule_queued(executor: Executor, prompt_ids: Sequence[int], delay: timedelta, *, patience: timedelta) -> None:
    """Pause in the same way, without an attempt, those of the prompts that are queued and not paused."""
    waiting = select(Prompt.id).where(
        Prompt.id.in_(prompt_ids),
        Prompt.status == Status.QUEUED,
        or_(Prompt.not_before.is_(None), Prompt.not_before <= func.now()),
        Prompt.queued_at > func.now() - patience,
    )
    locked = waiting.order_by(Prompt.id).with_for_update(key_share=True)
    later = _within(patience, delay)
    executor.execute(
        update(Prompt).where(Prompt.id.in_(locked.scalar_subquery())).values(due_at=later, not_before=later)
    )


def release(session: Session, claims: Iterable[Claim]) -> None:
    """Queue the prompts again because their worker must stop: due at once, and the attempts do not count."""
    session.execute(
        update(Prompt)
        .where(_holds((claim.id, claim.attempt) for claim in claims))
        .values(status=Status.QUEUED, due_at=func.now(), attempt_limit=Prompt.attempt_limit + 1)
    )


def _within(patience: timedelta, delay: timedelta) -> ColumnElement[datetime]:
    """The end of the delay, at the latest the moment at which the prompt was queued for `patience`."""
    return func.least(func.now() + delay, func.greatest(func.now(), Prompt.queued_at + patience))


def _holds(held: Iterable[tuple[int, int]]) -> ColumnElement[bool]:
    """The condition on a prompt that one of these (id, attempt) still holds it.

    The rows are locked in order, because another connection may be about to complete them.
    """
    ours = tuple_(Prompt.id, Prompt.attempt).in_(list(held)) & (Prompt.status == Status.PROCESSING)
    locked = select(Prompt.id).where(ours).order_by(Prompt.id).with_for_update(key_share=True)
    return Prompt.id.in_(locked.scalar_subquery()) & ours
