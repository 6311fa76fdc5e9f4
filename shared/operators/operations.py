"""Operations on many prompts: an admin begins, follows and undoes them; workers carry them out (`steps.py`).

The prompts of an operation are stored when it begins. So exactly the prompts that the admin has confirmed are changed,
each once, and an interrupted operation is resumed.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.orm import Session

from shared.accounts import audit
from shared.accounts.audit import Actor
from shared.db.engine import Executor
from shared.db.models import Action, Operation, OperationStatus, User
from shared.errors import CountChangedError, NotUndoableError, OperationNotFoundError, TooManyPromptsError
from shared.operators.filters import SINCE_WHEN, OperationFilter, conditions

#: How many prompts an operation may have: storing them takes about a second.
MAX_PROMPTS = 100_000

# Requests wait two seconds for a statement. An admin waits longer.
_PATIENCE = text("SET LOCAL statement_timeout = '15s'")
_OF_LIVE_ACCOUNTS = "user_id <> ALL(ARRAY(SELECT id FROM users WHERE deleted_at IS NOT NULL))"


class ModelCount(NamedTuple):
    """How many prompts of a model route a filter matches, of how many users."""

    model: str | None  #: None for all models
    prompts: int
    users: int


class OperationRow(NamedTuple):
    """An operation as admins see it. Each field but the last is a column."""

    id: int
    action: str
    filter: dict[str, Any]
    status: str
    total: int
    changed: int
    skipped: int
    undone: int
    created_at: datetime
    ended_at: datetime | None
    actor_id: int | None
    key_id: int | None
    actor_name: str | None  #: None if the account is deleted


_SELECT = select(
    *(getattr(Operation, name) for name in OperationRow._fields[:-1]), User.username.label("actor_name")
).outerjoin(User, (User.id == Operation.actor_id) & User.deleted_at.is_(None))


def count(session: Session, action: Action, wanted: OperationFilter) -> list[ModelCount]:
    """Count the prompts that an operation would have: first of all models together, then of each."""
    session.execute(_PATIENCE)
    condition, parameters = conditions(action, wanted)
    rows = session.execute(
        text(f"""
            SELECT route, count(*), count(DISTINCT user_id) FROM prompts WHERE {condition} AND {_OF_LIVE_ACCOUNTS}
            GROUP BY GROUPING SETS ((), (route)) ORDER BY route IS NOT NULL, count(*) DESC, route
        """),  # noqa: S608  # nosec B608
        parameters,
    )
    return [ModelCount(*row) for row in rows]


def begin(
    session: Session, action: Action, wanted: OperationFilter, shown: dict[str, Any], actor: Actor, *, expected: int
) -> int:
    """Begin an operation with the prompts that match the filter now. Returns its id. Workers find it by themselves.

    Args:
        shown: The filter as JSON.
        expected: How many prompts the admin has confirmed.

    Raises:
        CountChangedError: more prompts match than that.
        TooManyPromptsError: more than MAX_PROMPTS match.
    """
    session.execute(_PATIENCE)
    by = {"actor_id": actor.user_id, "key_id": actor.key_id, "address": actor.address, "request_id": actor.request_id}
    made = {"action": action, "filter": shown, **by}
    operation_id: int = session.execute(insert(Operation).values(made).returning(Operation.id)).scalar_one()
    condition, parameters = conditions(action, wanted)
    stored = session.execute(
        text(f"""
            INSERT INTO operation_prompts (operation_id, prompt_id, changed_at)
            SELECT :new_operation, id, {SINCE_WHEN[action]}
            FROM prompts WHERE {condition} AND {_OF_LIVE_ACCOUNTS} LIMIT :most
        """),  # noqa: S608  # nosec B608
        {**parameters, "new_operation": operation_id, "most": MAX_PROMPTS + 1},
    )
    total: int = stored.rowcount  # type: ignore[attr-defined]
    if total > MAX_PROMPTS:
        message = f"More than {MAX_PROMPTS} prompts match. Narrow the filter, for instance by a time."
        raise TooManyPromptsError(message, ["filter"])
    if total > expected:
        raise CountChangedError(
            f"{total} prompts match by now, not {expected}. Count again, and confirm the new number."
        )
    session.execute(update(Operation).where(Operation.id == operation_id).values(total=total))
    # Errors may quote a prompt, and the audit trail is never deleted.
    kept = {name: value for name, value in shown.items() if name != "error"}
    audit.record(
        session,
        actor,
        "operation.begun",
        wanted.user,
        operation_id=operation_id,
        operation=action,
        prompts=total,
        filter=kept,
    )
    return operation_id


def get(executor: Executor, operation_id: int) -> OperationRow:
    """An operation.

    Raises:
        OperationNotFoundError: there is none with this id.
    """
    row = executor.execute(_SELECT.where(Operation.id == operation_id)).first()
    if row is None:
        raise OperationNotFoundError
    return OperationRow._make(row)


def list_all(executor: Executor, *, limit: int, before: int) -> Sequence[OperationRow]:
    """Operations with ids below `before`, the newest first."""
    page = _SELECT.where(Operation.id < before).order_by(Operation.id.desc()).limit(limit)
    return [OperationRow._make(row) for row in executor.execute(page)]


def undo(session: Session, operation_id: int, actor: Actor) -> None:
    """Change no more prompts, and undo retries of prompts that no worker has started since.

    Prompts that were cancelled stay cancelled: an operation can retry them.

    Raises:
        OperationNotFoundError: there is none with this id.
        NotUndoableError: it is undone already.
    """
    operation = session.scalar(select(Operation).where(Operation.id == operation_id).with_for_update())
    if operation is None:
        raise OperationNotFoundError
    if operation.status not in (OperationStatus.RUNNING, OperationStatus.COMPLETED):
        raise NotUndoableError
    # A worker that is changing a group loses its lease, and the group is rolled back.
    operation.leased_by, operation.reached_id = None, 0
    if operation.action == Action.RETRY:
        operation.status, operation.due_at, operation.ended_at = OperationStatus.UNDOING, func.now(), None
    else:
        operation.status, operation.due_at, operation.ended_at = OperationStatus.UNDONE, None, func.now()
    audit.record(session, actor, "operation.undone", None, operation_id=operation_id, operation=operation.action)


def purge(executor: Executor, retention: timedelta) -> None:
    """Delete operations that ended longer ago than `retention`. Their entries in the audit trail stay."""
    executor.execute(text("DELETE FROM operations WHERE ended_at < now() - :retention"), {"retention": retention})
