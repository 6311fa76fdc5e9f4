"""What users do with their prompts: each step is one function, and its caller commits.

    submit → … → completed | failed      `shared/prompts/claims.py` has what happens in between
    cancel, retry, delete

All times are the database's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete as delete_from
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.orm import Session

from shared.db.arrays import array_parameters, column_types, unnest
from shared.db.engine import Executor
from shared.db.models import RETRIABLE, UNFINISHED, CacheUse, Change, FeedEntry, Prompt, Status, VectorLogEntry
from shared.errors import AlreadyEndedError, NotEndedError, PromptNotFoundError
from shared.prompts import feed, queries
from shared.prompts.answer import Answer
from shared.prompts.completion import Outcome, finish
from shared.prompts.feed import FinishedPrompt
from shared.prompts.queries import PromptRow


class NewPrompt(NamedTuple):
    """A prompt to be stored. Each field is a column."""

    user_id: int
    prompt_text: str
    websocket: bool
    request_id: str
    cache: CacheUse | None = None
    history: int = 0
    traceparent: str | None = None  #: of the request, if there are traces


@dataclass(frozen=True, slots=True)
class Deletion:
    """What the announcement of a deleted prompt needs."""

    user_id: int
    seq: int
    prompt_id: int
    attempt: int


_TYPES = column_types(Prompt.__table__, NewPrompt._fields)
_COLUMNS = ", ".join(_TYPES)
# The ids come in the order of the rows' positions.
_SUBMIT = text(f"""
    INSERT INTO prompts ({_COLUMNS}, due_at, attempt_limit)
    SELECT {_COLUMNS}, now() + :grace, :attempt_limit
    FROM {unnest(_TYPES)} WITH ORDINALITY AS new({_COLUMNS}, position)
    ORDER BY position
    RETURNING id, created_at
""")  # noqa: S608  # nosec B608


def submit(
    executor: Executor, new_prompts: Sequence[NewPrompt], *, grace: timedelta, attempt_limit: int
) -> list[PromptRow]:
    """Store prompts, in this order. The reaper enqueues those that no worker has claimed after `grace`."""
    parameters = array_parameters(_TYPES, new_prompts)
    rows = executor.execute(_SUBMIT, {"grace": grace, "attempt_limit": attempt_limit, **parameters})
    return [
        PromptRow(
            id=row.id,
            prompt_text=new.prompt_text,
            status=Status.QUEUED,
            websocket=new.websocket,
            attempt=0,
            error=None,
            seq=None,
            cache=new.cache,
            history=new.history,
            created_at=row.created_at,
            completed_at=None,
            answer=Answer(),
        )
        for new, row in zip(new_prompts, sorted(rows), strict=True)
    ]


def cancel(session: Session, user_id: int, prompt_id: int) -> FinishedPrompt:
    """Finish the prompt as cancelled.

    Raises:
        PromptNotFoundError: it does not exist, or belongs to another user.
        AlreadyEndedError: it had finished before.
    """
    unfinished = (Prompt.id == prompt_id, Prompt.user_id == user_id, Prompt.status.in_(UNFINISHED))
    attempt = session.scalar(select(Prompt.attempt).where(*unfinished).with_for_update())
    if attempt is None:
        status = queries.get(session, user_id, prompt_id).status
        raise AlreadyEndedError(f"The prompt has already ended: it is {status}.")
    return finish(session, [Outcome(prompt_id, attempt)], Change.CANCELLED, of=UNFINISHED).finished[0]


def retry(session: Session, user_id: int, prompt_id: int, *, grace: timedelta, attempts: int) -> PromptRow:
    """Queue a failed or cancelled prompt again, with `attempts` more attempts.

    Raises:
        PromptNotFoundError: it does not exist, or belongs to another user.
        NotEndedError: it is neither failed nor cancelled.
    """
    row = session.execute(
        update(Prompt)
        .where(Prompt.id == prompt_id, Prompt.user_id == user_id, Prompt.status.in_(RETRIABLE))
        .values(
            status=Status.QUEUED,
            error=None,
            completed_at=None,
            due_at=func.now() + grace,
            queued_at=func.now(),
            attempt_limit=Prompt.attempt + attempts,
        )
        .returning(*queries.COLUMNS)
    ).first()
    if row is None:
        status = queries.get(session, user_id, prompt_id).status
        raise NotEndedError(f"Only a failed or a cancelled prompt can be retried; this one is {status}.")
    return PromptRow.from_row(row)


def make_due(executor: Executor, prompt_ids: Sequence[int]) -> None:
    """Have the reaper enqueue these queued prompts in its next round."""
    queued = select(Prompt.id).where(Prompt.id.in_(prompt_ids), Prompt.status == Status.QUEUED)
    locked = queued.order_by(Prompt.id).with_for_update(key_share=True)
    executor.execute(update(Prompt).where(Prompt.id.in_(locked.scalar_subquery())).values(due_at=func.now()))


def delete(session: Session, user_id: int, prompt_id: int) -> Deletion:
    """Delete the prompt with its text, response and vector. A tombstone in the vector log removes it from every index.

    Raises:
        PromptNotFoundError: it does not exist, or belongs to another user.
    """
    mine = (Prompt.id == prompt_id, Prompt.user_id == user_id)
    attempt = session.scalar(delete_from(Prompt).where(*mine).returning(Prompt.attempt))
    if attempt is None:
        raise PromptNotFoundError
    seq = feed.advance(session, user_id)
    session.add(
        FeedEntry(user_id=user_id, seq=seq, prompt_id=prompt_id, change=Change.DELETED, at=func.clock_timestamp())
    )
    log = VectorLogEntry
    forgotten = delete_from(log).where(log.user_id == user_id, log.prompt_id == prompt_id).returning(log.seq)
    if session.execute(forgotten).all():
        session.execute(insert(log).values(user_id=user_id, seq=seq, prompt_id=prompt_id))
    return Deletion(user_id, seq, prompt_id, attempt)
