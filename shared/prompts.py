"""The lifecycle of a prompt: each step is one function of a session, and the caller owns the transaction.

    submit → claim → (renew …) → complete | fail      by the API, then a worker
    cancel, retry, delete                             by the user
    reap, exhausted                                   by the reaper

An *attempt* is a fence: whatever a worker changes, it changes only `WHERE status = 'processing' AND attempt = …`, so
one that wakes up late changes nothing. All times are the database's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.orm import Session

from shared import feed, library
from shared.errors import AlreadyEndedError, NotEndedError, PromptNotFoundError
from shared.feed import Ending
from shared.models import RETRIABLE, UNFINISHED, Change, FeedEntry, Prompt, Status, User, VectorLogEntry


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


class EmbedderChangedError(Exception):
    """Since the claim, the user's searches have come to compare another embedder's vectors: `name`."""

    def __init__(self, name: str | None) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, slots=True)
class Deletion:
    """What is left to tell of a deleted prompt."""

    user_id: int
    seq: int
    prompt_id: int
    attempt: int


def submit(
    session: Session,
    user_id: int,
    prompt_text: str,
    *,
    websocket: bool,
    request_id: str,
    grace: timedelta,
    attempt_limit: int,
) -> Prompt:
    """Stores a prompt. If no worker has it after `grace`, the reaper hands it out."""
    return session.execute(
        insert(Prompt)
        .values(
            user_id=user_id,
            prompt_text=prompt_text,
            websocket=websocket,
            request_id=request_id,
            due_at=func.now() + grace,
            attempt_limit=attempt_limit,
        )
        .returning(Prompt)
    ).scalar_one()


def claim(session: Session, prompt_ids: Sequence[int], lease: timedelta) -> list[Claim]:
    """Takes those of the prompts that wait for a worker. The others are somebody's, over, or not due yet."""
    rows = session.execute(
        update(Prompt)
        .where(
            Prompt.id.in_(prompt_ids),
            Prompt.status == Status.QUEUED,
            Prompt.not_before.is_(None) | (Prompt.not_before <= func.now()),
        )
        .values(status=Status.PROCESSING, attempt=Prompt.attempt + 1, due_at=func.now() + lease, not_before=None)
        .returning(
            Prompt.id,
            Prompt.attempt,
            (Prompt.attempt >= Prompt.attempt_limit).label("final"),
            Prompt.user_id,
            Prompt.prompt_text,
            Prompt.websocket,
            Prompt.request_id,
            select(User.embedder).where(User.id == Prompt.user_id).scalar_subquery().label("embedder"),
        )
    ).all()
    return [Claim(**row._mapping) for row in rows]


def renew(session: Session, held: Iterable[tuple[int, int]], lease: timedelta) -> set[tuple[int, int]]:
    """Moves on the leases of these (id, attempt) and returns those that are still held."""
    rows = session.execute(
        update(Prompt)
        .where(tuple_(Prompt.id, Prompt.attempt).in_(list(held)), Prompt.status == Status.PROCESSING)
        .values(due_at=func.now() + lease)
        .returning(Prompt.id, Prompt.attempt)
    )
    return {(row.id, row.attempt) for row in rows}


def complete(session: Session, held: Claim, response_text: str, *, embedder: str, vector: bytes) -> Ending | None:
    """Answers the prompt: its response, the feed's number and the vector-log row, all or nothing.

    The user's searches compare this embedder's vectors from then on, if they did not before.

    Returns:
        The ending to announce after the commit, or None if the claim no longer holds.

    Raises:
        EmbedderChangedError: the vector is not by the embedder that it should now be by; nothing must be committed.
    """
    ending = _end(session, held.user_id, held.id, Change.COMPLETED, _holds(held), response_text=response_text)
    if ending is None:
        return None
    if ending.embedder != embedder:
        if ending.embedder != held.embedder:
            raise EmbedderChangedError(ending.embedder)
        session.execute(update(User).where(User.id == held.user_id).values(embedder=embedder))
    session.execute(
        insert(VectorLogEntry).values(
            user_id=held.user_id,
            seq=ending.entry.seq,
            prompt_id=held.id,
            embedder=embedder,
            vector=vector,
        )
    )
    return ending


def fail(session: Session, held: Claim, error: str) -> Ending | None:
    """Gives the prompt up. Returns the ending to announce, or None if the claim no longer holds."""
    return _end(session, held.user_id, held.id, Change.FAILED, _holds(held), error=error)


def postpone(session: Session, held: Claim, delay: timedelta) -> bool:
    """Puts the prompt back, to be claimed again after `delay`. Returns whether the claim still held."""
    later = func.now() + delay
    changed = session.execute(
        update(Prompt)
        .where(Prompt.id == held.id, _holds(held))
        .values(status=Status.QUEUED, due_at=later, not_before=later)
        .returning(Prompt.id)
    )
    return changed.first() is not None


def hand_back(session: Session, claims: Sequence[Claim]) -> None:
    """Gives claims up because their worker must stop: they are due at once, and the attempt does not count."""
    for held in claims:
        session.execute(
            update(Prompt)
            .where(Prompt.id == held.id, _holds(held))
            .values(status=Status.QUEUED, due_at=func.now(), attempt_limit=Prompt.attempt_limit + 1)
        )


def cancel(session: Session, user_id: int, prompt_id: int) -> Ending:
    """Ends the prompt as cancelled.

    Raises:
        PromptNotFoundError: there is none, or it is somebody else's.
        AlreadyEndedError: it had ended before.
    """
    ending = _end(session, user_id, prompt_id, Change.CANCELLED, Prompt.status.in_(UNFINISHED))
    if ending is None:
        raise AlreadyEndedError(
            f"The prompt has already ended: it is {library.get(session, user_id, prompt_id).status}."
        )
    return ending


def retry(session: Session, user_id: int, prompt_id: int, *, grace: timedelta, attempts: int) -> Prompt:
    """Queues a failed or cancelled prompt again, with `attempts` more attempts.

    Raises:
        PromptNotFoundError: there is none, or it is somebody else's.
        NotEndedError: it is neither failed nor cancelled.
    """
    prompt: Prompt | None = session.scalar(
        update(Prompt)
        .where(Prompt.id == prompt_id, Prompt.user_id == user_id, Prompt.status.in_(RETRIABLE))
        .values(
            status=Status.QUEUED,
            error=None,
            completed_at=None,
            due_at=func.now() + grace,
            attempt_limit=Prompt.attempt + attempts,
        )
        .returning(Prompt)
    )
    if prompt is None:
        status = library.get(session, user_id, prompt_id).status
        raise NotEndedError(f"Only a failed or a cancelled prompt can be retried; this one is {status}.")
    return prompt


def make_due(session: Session, prompt_id: int) -> None:
    """Has the reaper hand out a queued prompt in its next round."""
    session.execute(
        update(Prompt).where(Prompt.id == prompt_id, Prompt.status == Status.QUEUED).values(due_at=func.now())
    )


def remove(session: Session, user_id: int, prompt_id: int) -> Deletion:
    """Deletes the prompt with its text, response and vector, and tells every index so with a tombstone.

    Raises:
        PromptNotFoundError: there is none, or it is somebody else's.
    """
    mine = (Prompt.id == prompt_id, Prompt.user_id == user_id)
    attempt = session.scalar(delete(Prompt).where(*mine).returning(Prompt.attempt))
    if attempt is None:
        raise PromptNotFoundError
    seq = feed.advance(session, user_id).seq
    session.add(
        FeedEntry(user_id=user_id, seq=seq, prompt_id=prompt_id, change=Change.DELETED, at=func.clock_timestamp())
    )
    log = VectorLogEntry
    forgotten = delete(log).where(log.user_id == user_id, log.prompt_id == prompt_id).returning(log.seq)
    if session.execute(forgotten).all():
        session.execute(insert(log).values(user_id=user_id, seq=seq, prompt_id=prompt_id))
    return Deletion(user_id, seq, prompt_id, attempt)


def reap(session: Session, *, grace: timedelta, limit: int, lost_after: timedelta | None = None) -> list[int]:
    """Takes what is overdue, longest first, to be handed out again: a lost message, a lapsed lease, a passed back-off.

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
        select(Prompt.id)
        .where(due, ~_out_of_attempts())
        .order_by(Prompt.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = session.execute(
        update(Prompt)
        .where(Prompt.id.in_(overdue.scalar_subquery()))
        .values(status=Status.QUEUED, due_at=func.now() + grace, not_before=None)
        .returning(Prompt.id)
    )
    return sorted(row.id for row in rows)


def exhausted(session: Session, *, limit: int) -> Sequence[tuple[int, int]]:
    """The (user_id, id) of prompts whose last attempt lapsed; `give_up` ends them."""
    query = select(Prompt.user_id, Prompt.id).where(Prompt.due_at <= func.now(), _out_of_attempts()).limit(limit)
    return [(row.user_id, row.id) for row in session.execute(query)]


def give_up(session: Session, user_id: int, prompt_id: int) -> Ending | None:
    """Fails a prompt whose last attempt lapsed. Returns None if that is no longer so."""
    lapsed = and_(Prompt.due_at <= func.now(), _out_of_attempts())
    return _end(
        session,
        user_id,
        prompt_id,
        Change.FAILED,
        lapsed,
        error="Gave up: every attempt ended without an answer.",
    )


def _out_of_attempts() -> ColumnElement[bool]:
    return and_(Prompt.status == Status.PROCESSING, Prompt.attempt >= Prompt.attempt_limit)


def _holds(held: Claim) -> ColumnElement[bool]:
    return and_(Prompt.status == Status.PROCESSING, Prompt.attempt == held.attempt)


def _end(
    session: Session, user_id: int, prompt_id: int, change: Change, fence: ColumnElement[bool], **values: Any
) -> Ending | None:
    """Ends a prompt if the fence lets it pass, else changes nothing. Locks the prompt first, then its user."""
    mine = (Prompt.id == prompt_id, Prompt.user_id == user_id)
    if session.scalar(select(Prompt.id).where(*mine, fence).with_for_update()) is None:
        return None
    user = feed.advance(session, user_id)
    # The moment itself, not the transaction's start: it may have waited for the user's lock.
    ended = {
        "status": change,
        "seq": user.seq,
        "due_at": None,
        "not_before": None,
        "completed_at": func.clock_timestamp(),
    }
    prompt = session.execute(
        update(Prompt)
        .where(*mine)
        .values(**ended, **values)
        .returning(Prompt)
        .execution_options(populate_existing=True)
    ).scalar_one()
    entry = FeedEntry(
        user_id=user_id, seq=user.seq, prompt_id=prompt_id, change=change, error=prompt.error, at=prompt.completed_at
    )
    session.add(entry)
    return Ending(entry, prompt, user.username, user.embedder)
