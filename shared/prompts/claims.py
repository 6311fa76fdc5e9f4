"""What workers and the reaper do to prompts: each step is one function, and its caller commits.

    claim → (renew …) → complete | fail | postpone | hand_back      by a worker
    reap, exhausted → give_up                                       by the reaper

An *attempt* is a fence: whatever a worker changes, it changes only `WHERE status = 'processing' AND attempt = …`, so
one that wakes up late changes nothing. All times are the database's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, or_, select, text, tuple_, update
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import Change, Prompt, Status
from shared.prompts.completion import FinishResult, Outcome, end
from shared.prompts.feed import FinishedPrompt
from shared.providers import Usage


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to finish one attempt at a prompt, until its lease lapses."""

    id: int
    attempt: int
    final: bool  #: no attempt follows this one
    user_id: int
    prompt_text: str
    websocket: bool
    request_id: str
    embedder: str | None  #: the name of the one whose vectors its user's searches compare, if there is any yet
    cache: str | None  #: a `CacheUse`
    history: int  #: how many earlier exchanges the answer is to know of
    queued_at: datetime  #: when its user last did that
    age: timedelta  #: since then
    traceparent: str | None  #: of the trace that its spans belong to

    @property
    def idempotency_key(self) -> str:
        """The same for each attempt, until its user retries it; and another one in every other installation."""
        return f"promptwire-{self.id}-{self.queued_at.timestamp() * 1000:.0f}"


class Response(NamedTuple):
    """What a prompt is answered, by which generator (its name), and what that took."""

    text: str
    generator: str
    usage: Usage = Usage()
    cached_from: int | None = None  #: the prompt whose answer was taken


@dataclass(frozen=True, slots=True)
class Answer:
    """What a claimed prompt is completed with. `vector` is of `embedder`: little-endian float32."""

    claim: Claim
    response: Response
    embedder: str
    vector: bytes


class Rescue(StrEnum):
    """Why a prompt is handed out again."""

    LAPSED = "lapsed"  # whoever held it did not renew its lease
    PAUSED = "paused"  # its pause after a failed attempt is over
    LOST = "lost"  # nobody took it: its message was lost, or could not be sent


_HELD = (Status.PROCESSING,)

# It does not wait for the disk: if the server crashes at once, the claim may be forgotten, and the prompt is handed out
# again, under the same number. Then either of the two may end it; once, as always.
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
    """Takes those of the prompts that wait for a worker. The others are somebody's, over, or not due yet."""
    rows = executor.execute(_CLAIM, {"prompt_ids": list(prompt_ids), "lease": lease})
    return sorted((Claim(*row) for row in rows), key=lambda claim: claim.id)


def renew(session: Session, claim: Iterable[tuple[int, int]], lease: timedelta) -> set[tuple[int, int]]:
    """Moves on the leases of these (id, attempt) and returns those that are still held."""
    rows = session.execute(
        update(Prompt).where(_hold(claim)).values(due_at=func.now() + lease).returning(Prompt.id, Prompt.attempt)
    )
    return {(row.id, row.attempt) for row in rows}


def complete(executor: Executor, answers: Sequence[Answer]) -> FinishResult:
    """Answers those of the prompts whose claims still hold.

    Not those whose users' searches have come to compare another embedder's vectors since the claim: theirs must be made
    anew.
    """
    outcomes = [
        Outcome(
            answer.claim.id,
            answer.claim.attempt,
            response_text=answer.response.text,
            generator=answer.response.generator,
            model=answer.response.usage.model,
            prompt_tokens=answer.response.usage.prompt_tokens,
            completion_tokens=answer.response.usage.completion_tokens,
            cached_from=answer.response.cached_from,
            embedder=answer.embedder,
            vector=answer.vector,
            expected_embedder=answer.claim.embedder,
        )
        for answer in answers
    ]
    return end(executor, outcomes, Change.COMPLETED, of=_HELD)


def fail(executor: Executor, claim: Claim, error: str) -> FinishedPrompt | None:
    """Gives the prompt up. Returns the ending to announce, or None if the claim no longer holds."""
    endings = end(executor, [Outcome(claim.id, claim.attempt, error=error)], Change.FAILED, of=_HELD).endings
    return endings[0] if endings else None


def postpone(session: Session, claim: Claim, delay: timedelta) -> bool:
    """Puts the prompt back, to be claimed again after `delay`. Returns whether the claim still held."""
    later = func.now() + delay
    changed = session.execute(
        update(Prompt)
        .where(_hold([(claim.id, claim.attempt)]))
        .values(status=Status.QUEUED, due_at=later, not_before=later)
        .returning(Prompt.id)
    )
    return changed.first() is not None


def wait_for_provider(session: Session, claim: Claim, delay: timedelta, *, patience: timedelta) -> None:
    """Puts the prompt back, and this attempt is none of those that it has.

    It is claimed again after `delay`, or when its patience ends: so long after it was queued.
    """
    later = _within(patience, delay)
    session.execute(
        update(Prompt)
        .where(_hold([(claim.id, claim.attempt)]))
        .values(status=Status.QUEUED, due_at=later, not_before=later, attempt_limit=Prompt.attempt_limit + 1)
    )


def reschedule_queued(executor: Executor, prompt_ids: Sequence[int], delay: timedelta, *, patience: timedelta) -> None:
    """Has those that wait for a worker, and for nothing else, wait in the same way, without an attempt."""
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
    """Gives claims up because their worker must stop: they are due at once, and the attempt does not count."""
    session.execute(
        update(Prompt)
        .where(_hold((claim.id, claim.attempt) for claim in claims))
        .values(status=Status.QUEUED, due_at=func.now(), attempt_limit=Prompt.attempt_limit + 1)
    )


def reap(session: Session, *, grace: timedelta, limit: int, lost_after: timedelta | None = None) -> dict[int, Rescue]:
    """Takes what is overdue, longest first, to be handed out again. Returns why, by the prompts' ids, in their order.

    Any number of reapers may run at once: each skips what another has locked.

    Args:
        grace: How long a message may be on its way, as the caller of `submit` and of earlier rounds had it.
        lost_after: Give it if no message waits in the queue: what was handed out longer ago and is still not taken has
            lost its message, and need not wait for the rest of its grace.
    """
    due = Prompt.due_at <= func.now()
    if lost_after is not None:
        untaken = and_(Prompt.status == Status.QUEUED, Prompt.not_before.is_(None))
        due = and_(Prompt.due_at <= func.now() + max(grace - lost_after, timedelta()), or_(due, untaken))
    overdue = (
        select(Prompt.id, Prompt.status, Prompt.not_before.is_not(None).label("paused"))
        .where(due, ~_out_of_attempts())
        .order_by(Prompt.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("overdue")
    )
    rows = session.execute(
        update(Prompt)
        .where(Prompt.id == overdue.c.id)
        .values(status=Status.QUEUED, due_at=func.now() + grace, not_before=None)
        .returning(Prompt.id, overdue.c.status, overdue.c.paused)
        .execution_options(synchronize_session=False)
    )
    return {prompt_id: _why(status, paused) for prompt_id, status, paused in sorted(rows)}


def _why(status: str, paused: bool) -> Rescue:
    if status == Status.PROCESSING:
        return Rescue.LAPSED
    return Rescue.PAUSED if paused else Rescue.LOST


def exhausted(session: Session, *, limit: int) -> Sequence[int]:
    """The prompts whose last attempt lapsed; `give_up` ends them."""
    query = select(Prompt.id).where(Prompt.due_at <= func.now(), _out_of_attempts()).limit(limit)
    return session.scalars(query).all()


def give_up(session: Session, prompt_id: int) -> FinishedPrompt | None:
    """Fails a prompt whose last attempt lapsed. Returns None if that is no longer so."""
    lapsed = and_(Prompt.id == prompt_id, Prompt.due_at <= func.now(), _out_of_attempts())
    attempt = session.scalar(select(Prompt.attempt).where(lapsed).with_for_update())
    if attempt is None:
        return None
    error = "Gave up: every attempt ended without an answer."
    return end(session, [Outcome(prompt_id, attempt, error=error)], Change.FAILED, of=_HELD).endings[0]


def _within(patience: timedelta, delay: timedelta) -> ColumnElement[datetime]:
    """The end of the delay, but at the latest that of the prompt's patience."""
    return func.least(func.now() + delay, func.greatest(func.now(), Prompt.queued_at + patience))


def _hold(claim: Iterable[tuple[int, int]]) -> ColumnElement[bool]:
    """Of a prompt, that one of these (id, attempt) still holds it.

    They are locked in order, because another connection may be about to complete them.
    """
    ours = tuple_(Prompt.id, Prompt.attempt).in_(list(claim)) & (Prompt.status == Status.PROCESSING)
    locked = select(Prompt.id).where(ours).order_by(Prompt.id).with_for_update(key_share=True)
    return Prompt.id.in_(locked.scalar_subquery()) & ours


def _out_of_attempts() -> ColumnElement[bool]:
    return and_(Prompt.status == Status.PROCESSING, Prompt.attempt >= Prompt.attempt_limit)
