"""What users do with their prompts: each step is one function, and its caller commits.

    submit → … → completed | failed      `shared/prompts/claims.py` has what happens in between
    cancel, retry, delete

All times are the database's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import case, func, insert, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.orm import Session

from shared.accounts import budgets
from shared.accounts.budgets import Reservation
from shared.db.arrays import array_parameters, column_types, unnest
from shared.db.engine import Executor
from shared.db.models import (
    CLAIMABLE,
    COUNTED,
    DEFAULT_ROUTE,
    RETRIABLE,
    UNFINISHED,
    Batch,
    BatchStatus,
    CacheUse,
    Change,
    FeedEntry,
    Priority,
    Prompt,
    Status,
    VectorLogEntry,
)
from shared.db.prepared import PreparedStatement
from shared.errors import AlreadyEndedError, NotEndedError, PromptEmptiedError, PromptNotFoundError, UserLimitError
from shared.prompts import completion, feed, queries, scheduling
from shared.prompts.answer import Answer
from shared.prompts.feed import FinishedPrompt
from shared.prompts.queries import PromptRow
from shared.prompts.scheduling import COUNT_ACTIVE, LOCK_USERS, WITH_TURNS


class NewPrompt(NamedTuple):
    """A prompt to be stored. Each field is a column."""

    user_id: int
    prompt_text: str
    websocket: bool
    request_id: str
    cache: CacheUse | None = None
    history: int = 0
    traceparent: str | None = None  #: of the request, if there are traces
    priority: str = Priority.DEFAULT
    route: str = DEFAULT_ROUTE
    key_id: int | None = None  #: the API key that submits it; None for a login
    reserved_tokens: int = 0  #: of its budgets (see `shared/accounts/budgets.py`)
    request: dict[str, Any] | None = None  #: a `ModelRequest` as JSON
    request_hash: bytes | None = None  #: of that
    metadata: dict[str, str] | None = None
    api: str | None = None  #: a `FrontApi`; None for `POST /prompts/`
    api_request: dict[str, Any] | None = None  #: what else the resource of that API repeats


@dataclass(frozen=True, slots=True)
class Deletion:
    """What the announcement of a deleted prompt needs."""

    user_id: int
    seq: int
    prompt_id: int
    attempt: int


class PromptLimits(NamedTuple):
    """How many unfinished prompts a user may have, how many of them may run or have a turn, and how many tokens all
    prompts of the user may use in a month. None: any number.
    """

    backlog: int | None = None
    running: int | None = None
    monthly_tokens: int | None = None


NO_LIMITS = PromptLimits()


def backlog_error(limit: int | None) -> UserLimitError:
    """The error of a user who has `limit` unfinished prompts."""
    message = f"You have {limit} unfinished prompts, the most that a user may have. Wait until some end."
    return UserLimitError(message, limit="USER_BACKLOG_LIMIT")


_TYPES = column_types(Prompt.__table__, NewPrompt._fields)
_COLUMNS = ", ".join(_TYPES)
#: A submission returns its position if at most this many prompts are ahead, and if it was stored together with few
#: others, because counting must cost almost nothing here. The next read of the prompt has the position in any case.
_MAX_AHEAD, _MAX_GROUP = 100, 4

# Ids are assigned in the order of the group. Prompts beyond their user's backlog are not stored.
_SUBMIT = PreparedStatement(
    "submit",
    f"""
    WITH new AS MATERIALIZED (
        SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY position) AS number
        FROM {unnest(_TYPES)} WITH ORDINALITY AS new({_COLUMNS}, position)
    ), owner AS MATERIALIZED (
        SELECT user_id, {COUNT_ACTIVE} AS active, CASE WHEN CAST(:backlog AS bigint) IS NULL THEN 0 ELSE (
            SELECT count(*) FROM (
                SELECT FROM prompts WHERE user_id = owner.user_id AND {COUNTED}
                LIMIT CAST(:backlog AS bigint)
            ) AS unfinished
        ) END AS unfinished
        FROM (SELECT DISTINCT user_id FROM new) AS owner
    ), admitted AS MATERIALIZED (
        SELECT nextval(pg_get_serial_sequence('prompts', 'id')) AS id, *
        FROM (
            SELECT new.*, active + number AS running FROM new JOIN owner USING (user_id)
            WHERE CAST(:backlog AS bigint) IS NULL OR unfinished + number <= CAST(:backlog AS bigint)
            ORDER BY position
        ) AS ordered
    ), runnable AS MATERIALIZED (
        SELECT id, user_id, route, priority FROM admitted
        WHERE CAST(:running_limit AS bigint) IS NULL OR running <= CAST(:running_limit AS bigint)
    ), granted AS MATERIALIZED (
        {WITH_TURNS}
    ), stored AS (
        INSERT INTO prompts (id, {_COLUMNS}, turn, due_at, attempt_limit)
        OVERRIDING SYSTEM VALUE
        SELECT id, {", ".join(f"admitted.{name}" for name in _TYPES)}, turn, now() + :grace, :attempt_limit
        FROM admitted LEFT JOIN granted USING (id)
        ORDER BY id
        RETURNING id, created_at
    )
    SELECT position AS number, stored.id, stored.created_at,
        CASE WHEN granted.turn IS NOT NULL AND (SELECT count(*) FROM granted) <= {_MAX_GROUP} THEN
            nullif((
                SELECT count(*) FROM (
                    SELECT FROM prompts
                    WHERE route = granted.route AND {CLAIMABLE}
                        AND (priority, turn, id) < (granted.priority, granted.turn, granted.id)
                    LIMIT {_MAX_AHEAD} + 1
                ) AS earlier
            ), {_MAX_AHEAD} + 1) + (
                SELECT count(*) FROM granted AS other
                WHERE route = granted.route
                    AND (priority, turn, id) <= (granted.priority, granted.turn, granted.id)
            )
        END AS queue_position
    FROM admitted JOIN stored USING (id) LEFT JOIN granted USING (id)
    """,  # noqa: S608  # nosec B608
    {
        **{name: f"{type_}[]" for name, type_ in _TYPES.items()},
        "grace": "interval",
        "attempt_limit": "bigint",
        "backlog": "bigint",
        "running_limit": "bigint",
    },
    first=f"{LOCK_USERS};",
)


def submit(
    executor: Executor,
    new_prompts: Sequence[NewPrompt],
    *,
    grace: timedelta,
    attempt_limit: int,
    limits: PromptLimits = NO_LIMITS,
) -> list[PromptRow | None]:
    """Store prompts, in this order, each with a turn; None for those beyond their users' backlog.

    Wake up workers for them after the commit.
    """
    parameters = {
        "grace": grace,
        "attempt_limit": attempt_limit,
        "backlog": limits.backlog,
        "running_limit": limits.running,
        **array_parameters(_TYPES, new_prompts),
    }
    stored: list[PromptRow | None] = [None] * len(new_prompts)
    for row in _SUBMIT(executor, parameters):
        new = new_prompts[row.number - 1]
        stored[row.number - 1] = PromptRow(
            id=row.id,
            prompt_text=new.prompt_text,
            status=Status.QUEUED,
            websocket=new.websocket,
            attempt=0,
            error=None,
            seq=None,
            cache=new.cache,
            history=new.history,
            route=new.route,
            priority=new.priority,
            metadata=new.metadata,
            api=new.api,
            created_at=row.created_at,
            completed_at=None,
            emptied_at=None,
            answer=Answer(),
            position=row.queue_position,
        )
    return stored


_RUNNING_BATCHES = select(Batch.id).where(Batch.status == BatchStatus.IN_PROGRESS)


def cancel(session: Session, user_id: int, prompt_id: int) -> FinishedPrompt:
    """Finish the prompt as cancelled.

    Raises:
        PromptNotFoundError: it does not exist, or belongs to another user.
        AlreadyEndedError: it had finished before.
    """
    unfinished = (Prompt.id == prompt_id, Prompt.user_id == user_id, Prompt.status.in_(UNFINISHED))
    prompt = session.execute(select(*budgets.RESERVED).where(*unfinished).with_for_update()).first()
    if prompt is None:
        status = queries.get(session, user_id, prompt_id).status
        raise AlreadyEndedError(f"The prompt has already ended: it is {status}.")
    return completion.cancel(session, [prompt])[0]


def retry(
    session: Session,
    user_id: int,
    prompt_id: int,
    *,
    grace: timedelta,
    attempts: int,
    limits: PromptLimits = NO_LIMITS,
    key_id: int | None = None,
    reserved_tokens: int = 0,
) -> PromptRow:
    """Queue a failed or cancelled prompt again, with `attempts` more attempts, and a new turn.

    From now on it is a prompt of the API key `key_id`, or of a login.

    Raises:
        PromptNotFoundError: it does not exist, or belongs to another user.
        NotEndedError: it is neither failed nor cancelled.
        PromptEmptiedError: its text is not kept any more.
        UserLimitError: the user has too many unfinished prompts.
        BudgetExceededError: a budget has less than `reserved_tokens` left.
    """
    scheduling.lock_users(session, [user_id])
    _check_limits(session, Reservation(user_id, key_id, reserved_tokens), limits)
    mine = (Prompt.id == prompt_id, Prompt.user_id == user_id)
    changes = requeued(grace=grace, attempts=attempts) | {"key_id": key_id, "reserved_tokens": reserved_tokens}
    retriable = update(Prompt).where(*mine, Prompt.status.in_(RETRIABLE), Prompt.emptied_at.is_(None))
    row = session.execute(retriable.values(changes).returning(*queries.COLUMNS)).first()
    if row is None:
        check_retriable(session, user_id, prompt_id)
        raise NotEndedError  # its status has changed since
    scheduling.grant_turns(session, [user_id], grace=grace, running_limit=limits.running)
    return PromptRow.from_row(row)


def requeued(*, grace: timedelta, attempts: int) -> dict[str, Any]:
    """What a retry changes in the row of an ended prompt. It needs a turn then (`scheduling.grant_turns`)."""
    return {
        "status": Status.QUEUED,
        "error": None,
        "completed_at": None,
        "turn": None,
        "due_at": func.now() + grace,
        "queued_at": func.now(),
        "attempt_limit": Prompt.attempt + attempts,
        # The files of a batch that has ended do not get its answer any more: it is a prompt of its own.
        "batch_id": case((Prompt.batch_id.in_(_RUNNING_BATCHES), Prompt.batch_id)),
    }


def _check_limits(session: Session, reservation: Reservation, limits: PromptLimits) -> None:
    """Raise UserLimitError or BudgetExceededError if the user may not have one more unfinished prompt."""
    user_id = reservation.user_id
    if limits.backlog is not None and queries.count_unfinished(session, user_id, limits.backlog) >= limits.backlog:
        raise backlog_error(limits.backlog)
    if reservation.reserved_tokens:
        (exceeded,) = budgets.check(session, [reservation], limits.monthly_tokens)
        if exceeded is not None:
            raise exceeded


def check_retriable(executor: Executor, user_id: int, prompt_id: int) -> PromptRow:
    """Return the prompt if it may be retried. Raises as `retry` does."""
    prompt = queries.get(executor, user_id, prompt_id)
    if prompt.status not in RETRIABLE:
        raise NotEndedError(f"Only a failed or a cancelled prompt can be retried; this one is {prompt.status}.")
    if prompt.emptied_at is not None:
        raise PromptEmptiedError
    return prompt


def delete(session: Session, user_id: int, prompt_id: int) -> Deletion:
    """Delete the prompt with its text, response and vector. A tombstone in the vector log removes it from every index.

    Raises:
        PromptNotFoundError: it does not exist, or belongs to another user.
    """
    mine = (Prompt.id == prompt_id, Prompt.user_id == user_id)
    prompt = session.execute(delete_from(Prompt).where(*mine).returning(*budgets.RESERVED)).first()
    if prompt is None:
        raise PromptNotFoundError
    budgets.keep_reserved(session, prompt)
    seq = feed.advance(session, user_id)
    session.add(
        FeedEntry(user_id=user_id, seq=seq, prompt_id=prompt_id, change=Change.DELETED, at=func.clock_timestamp())
    )
    log = VectorLogEntry
    forgotten = delete_from(log).where(log.user_id == user_id, log.prompt_id == prompt_id).returning(log.seq)
    if session.execute(forgotten).all():
        session.execute(insert(log).values(user_id=user_id, seq=seq, prompt_id=prompt_id))
    return Deletion(user_id, seq, prompt_id, prompt.attempt)
