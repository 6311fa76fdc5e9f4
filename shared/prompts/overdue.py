"""What the reaper does with prompts that are due: enqueue them again, or fail those without attempts left.

Each step is one function, and its caller commits. Any number of reapers may run at once.
"""

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session

from shared.db.models import Change, Prompt, Status
from shared.prompts.claims import CLAIMED
from shared.prompts.completion import Outcome, finish
from shared.prompts.feed import FinishedPrompt

_GAVE_UP = "Gave up: every attempt ended without an answer."


class Rescue(StrEnum):
    """Why a prompt is enqueued again."""

    LAPSED = "lapsed"  # its worker did not renew the lease
    PAUSED = "paused"  # its pause after a failed attempt is over
    LOST = "lost"  # no worker claimed it: its message was lost, or could not be sent


def requeue(
    session: Session, *, grace: timedelta, limit: int, lost_after: timedelta | None = None
) -> dict[int, Rescue]:
    """Queue prompts that are due, longest first. Returns why, by the prompts' ids, in their order.

    Prompts that another reaper has locked are skipped.

    Args:
        grace: How long a message may be on its way, as the caller of `submit` and of earlier rounds had it.
        lost_after: Give it if no message waits in the queue: the message of a prompt that was enqueued longer ago and
            is still not claimed is lost, and the rest of the grace need not pass.
    """
    due = Prompt.due_at <= func.now()
    if lost_after is not None:
        unclaimed = and_(Prompt.status == Status.QUEUED, Prompt.not_before.is_(None))
        due = and_(Prompt.due_at <= func.now() + max(grace - lost_after, timedelta()), or_(due, unclaimed))
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
    return {prompt_id: _rescue(status, paused) for prompt_id, status, paused in sorted(rows)}


def _rescue(status: str, paused: bool) -> Rescue:
    if status == Status.PROCESSING:
        return Rescue.LAPSED
    return Rescue.PAUSED if paused else Rescue.LOST


def exhausted(session: Session, *, limit: int) -> Sequence[int]:
    """The prompts whose last attempt lapsed; `fail_exhausted` finishes them."""
    query = select(Prompt.id).where(Prompt.due_at <= func.now(), _out_of_attempts()).limit(limit)
    return session.scalars(query).all()


def fail_exhausted(session: Session, prompt_id: int) -> FinishedPrompt | None:
    """Fail a prompt whose last attempt lapsed. Returns what to announce, or None if that is no longer so."""
    lapsed = and_(Prompt.id == prompt_id, Prompt.due_at <= func.now(), _out_of_attempts())
    attempt = session.scalar(select(Prompt.attempt).where(lapsed).with_for_update())
    if attempt is None:
        return None
    return finish(session, [Outcome(prompt_id, attempt, error=_GAVE_UP)], Change.FAILED, of=CLAIMED).finished[0]


def _out_of_attempts() -> ColumnElement[bool]:
    return and_(Prompt.status == Status.PROCESSING, Prompt.attempt >= Prompt.attempt_limit)
