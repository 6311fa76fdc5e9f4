"""What users do to their prompts: each step is one function, and its caller commits.

    submit → … → completed | failed      `shared/prompts/claims.py` is what happens in between
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

from shared.db.engine import Executor
from shared.db.models import RETRIABLE, UNFINISHED, CacheUse, Change, FeedEntry, Prompt, Status, VectorLogEntry
from shared.errors import AlreadyEndedError, NotEndedError, PromptNotFoundError
from shared.prompts import feed, queries
from shared.prompts.completion import Outcome, end
from shared.prompts.feed import FinishedPrompt
from shared.prompts.queries import PromptRow


class NewPrompt(NamedTuple):
    """A prompt that is to be stored."""

    user_id: int
    prompt_text: str
    websocket: bool
    request_id: str
    cache: CacheUse | None = None
    history: int = 0
    traceparent: str | None = None  #: of the request, if there are traces


@dataclass(frozen=True, slots=True)
class Deletion:
    """What is left to tell of a deleted prompt."""

    user_id: int
    seq: int
    prompt_id: int
    attempt: int


# The ids come in the order of the rows' positions.
_SUBMIT = text("""
    INSERT INTO prompts (
        user_id, prompt_text, websocket, request_id, cache, history, traceparent, due_at, attempt_limit
    )
    SELECT user_id, prompt_text, websocket, request_id, cache, history, traceparent, now() + :grace, :attempt_limit
    FROM unnest(
        CAST(:user_id AS bigint[]), CAST(:prompt_text AS text[]), CAST(:websocket AS boolean[]),
        CAST(:request_id AS text[]), CAST(:cache AS text[]), CAST(:history AS bigint[]), CAST(:traceparent AS text[])
    ) WITH ORDINALITY AS draft(user_id, prompt_text, websocket, request_id, cache, history, traceparent, position)
    ORDER BY position
    RETURNING id, created_at
""")


def submit(executor: Executor, drafts: Sequence[NewPrompt], *, grace: timedelta, attempt_limit: int) -> list[PromptRow]:
    """Stores prompts, in this order. Those that no worker has after `grace`, the reaper hands out."""
    arrays = dict(zip(NewPrompt._fields, map(list, zip(*drafts, strict=True)), strict=True))
    rows = executor.execute(_SUBMIT, {"grace": grace, "attempt_limit": attempt_limit, **arrays})
    return [
        PromptRow(
            id=row.id,
            prompt_text=draft.prompt_text,
            response_text=None,
            status=Status.QUEUED,
            websocket=draft.websocket,
            attempt=0,
            error=None,
            seq=None,
            cache=draft.cache,
            history=draft.history,
            model=None,
            prompt_tokens=None,
            completion_tokens=None,
            cached_from=None,
            created_at=row.created_at,
            completed_at=None,
        )
        for draft, row in zip(drafts, sorted(rows), strict=True)
    ]


def cancel(session: Session, user_id: int, prompt_id: int) -> FinishedPrompt:
    """Ends the prompt as cancelled.

    Raises:
        PromptNotFoundError: there is none, or it is somebody else's.
        AlreadyEndedError: it had ended before.
    """
    unfinished = (Prompt.id == prompt_id, Prompt.user_id == user_id, Prompt.status.in_(UNFINISHED))
    attempt = session.scalar(select(Prompt.attempt).where(*unfinished).with_for_update())
    if attempt is None:
        status = queries.get(session, user_id, prompt_id).status
        raise AlreadyEndedError(f"The prompt has already ended: it is {status}.")
    return end(session, [Outcome(prompt_id, attempt)], Change.CANCELLED, of=UNFINISHED).endings[0]


def retry(session: Session, user_id: int, prompt_id: int, *, grace: timedelta, attempts: int) -> PromptRow:
    """Queues a failed or cancelled prompt again, with `attempts` more attempts.

    Raises:
        PromptNotFoundError: there is none, or it is somebody else's.
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
    return PromptRow._make(row)


def make_due(executor: Executor, prompt_ids: Sequence[int]) -> None:
    """Has the reaper hand out queued prompts in its next round."""
    queued = select(Prompt.id).where(Prompt.id.in_(prompt_ids), Prompt.status == Status.QUEUED)
    locked = queued.order_by(Prompt.id).with_for_update(key_share=True)
    executor.execute(update(Prompt).where(Prompt.id.in_(locked.scalar_subquery())).values(due_at=func.now()))


def delete(session: Session, user_id: int, prompt_id: int) -> Deletion:
    """Deletes the prompt with its text, response and vector, and tells every index so with a tombstone.

    Raises:
        PromptNotFoundError: there is none, or it is somebody else's.
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
