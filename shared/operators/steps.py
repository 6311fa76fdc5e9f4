"""The steps of operations on many prompts: a worker leases one, and changes a group of its prompts in each transaction.

The outcome of each prompt, the position after the group and the entries of the audit trail are stored in the same
transaction, under the lease. So a group is changed once or not at all, and the next worker continues after it.

Lock order: advisory locks of users, prompts, users, operations.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from sqlalchemy import Select, select, text, update
from sqlalchemy.orm import Session

from shared.accounts import audit, budgets
from shared.accounts.audit import Actor
from shared.accounts.budgets import Reservation
from shared.db.engine import Executor
from shared.db.models import (
    RETRIABLE,
    UNFINISHED,
    Action,
    OperationPrompt,
    OperationStatus,
    Prompt,
    PromptOutcome,
    User,
)
from shared.prompts import completion, scheduling, submission
from shared.prompts.feed import FinishedPrompt

#: How many prompts a transaction changes.
GROUP = 500
_CANCELLED = "An operator has cancelled it."


class OperationLostError(Exception):
    """The lease has passed to another worker, or the operation is being undone. The transaction must be rolled back."""


class RetryRules(NamedTuple):
    """The settings for retried prompts."""

    grace: timedelta  #: SUBMIT_GRACE_SECONDS
    attempts: int  #: MAX_ATTEMPTS
    running_limit: int | None  #: USER_RUNNING_LIMIT
    monthly_tokens: int | None  #: USER_MONTHLY_TOKENS
    models: Collection[str]  #: the configured model routes


class LeasedOperation(NamedTuple):
    """An operation that this worker has leased. Each field is a column."""

    id: int
    action: str
    status: str
    actor_id: int | None
    key_id: int | None
    address: str
    request_id: str | None
    leased_by: str

    @property
    def actor(self) -> Actor:
        return Actor(self.actor_id, self.key_id, self.address, self.request_id)


class GroupResult(NamedTuple):
    """The result of a group, and what to do after its commit."""

    is_last: bool = False
    claimable: Mapping[str, int] = {}  #: prompts by route: wake up workers for them
    finished: Sequence[FinishedPrompt] = ()  #: announce these


_CLAIM = text(f"""
    WITH next AS MATERIALIZED (
        SELECT id FROM operations WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE operations SET due_at = clock_timestamp() + :lease, leased_by = :leased_by
    FROM next WHERE operations.id = next.id
    RETURNING {", ".join(f"operations.{name}" for name in LeasedOperation._fields)}
""")  # noqa: S608  # nosec B608
_RELEASE = text("UPDATE operations SET due_at = clock_timestamp() WHERE id = :id AND leased_by = :leased_by")
_HELD = "id = :id AND leased_by = :leased_by AND status = :status"
_ADVANCE = text(f"""
    UPDATE operations SET reached_id = :reached, due_at = clock_timestamp() + :lease,
        changed = changed + :changed, skipped = skipped + :skipped, undone = undone + :undone
    WHERE {_HELD}
""")  # noqa: S608  # nosec B608
_END = text(f"""
    UPDATE operations SET status = :ended, due_at = NULL, leased_by = NULL, ended_at = clock_timestamp()
    WHERE {_HELD}
    RETURNING total, changed, skipped, undone
""")  # noqa: S608  # nosec B608
_NEXT = text("""
    SELECT prompt_id FROM operation_prompts
    WHERE operation_id = :id AND prompt_id > (SELECT reached_id FROM operations WHERE id = :id)
        AND outcome IS NOT DISTINCT FROM :outcome
    ORDER BY prompt_id LIMIT :limit
""")
_RECORD = text("""
    UPDATE operation_prompts
    SET outcome = CASE WHEN before.id IS NULL THEN 'skipped' ELSE 'changed' END,
        attempt = before.attempt, batch_id = before.batch_id,
        changed_at = CASE WHEN before.id IS NOT NULL THEN now() END
    FROM unnest(CAST(:prompt_ids AS bigint[])) AS done(prompt_id)
    LEFT JOIN unnest(CAST(:ids AS bigint[]), CAST(:attempts AS bigint[]), CAST(:batch_ids AS bigint[]))
        AS before(id, attempt, batch_id) ON before.id = done.prompt_id
    WHERE operation_id = :operation_id AND operation_prompts.prompt_id = done.prompt_id
""")
# The feed has the error that the retry has cleared. A prompt that was claimed, or retried once more, has another
# attempt or time.
_RESTORE = text("""
    WITH wanted AS MATERIALIZED (
        SELECT prompts.id, before.batch_id, feed.change, feed.error, feed.at
        FROM operation_prompts AS before
        JOIN prompts ON prompts.id = before.prompt_id
        JOIN feed ON feed.user_id = prompts.user_id AND feed.seq = prompts.seq AND feed.prompt_id = prompts.id
        WHERE before.operation_id = :id AND before.prompt_id = ANY(CAST(:prompt_ids AS bigint[]))
            AND prompts.status = 'queued' AND prompts.attempt = before.attempt
            AND prompts.queued_at = before.changed_at AND feed.change IN ('failed', 'cancelled')
        ORDER BY prompts.id
        FOR NO KEY UPDATE OF prompts
    ), restored AS (
        UPDATE prompts SET status = wanted.change, error = wanted.error, completed_at = wanted.at, due_at = NULL,
            turn = NULL, not_before = NULL, batch_id = wanted.batch_id
        FROM wanted WHERE prompts.id = wanted.id
        RETURNING prompts.id, prompts.user_id
    ), recorded AS (
        UPDATE operation_prompts SET outcome = 'undone'
        FROM restored WHERE operation_id = :id AND prompt_id = restored.id
    )
    SELECT user_id FROM restored
""")


def claim(executor: Executor, lease: timedelta) -> LeasedOperation | None:
    """Lease the operation that has waited longest; None if none waits."""
    row = executor.execute(_CLAIM, {"lease": lease, "leased_by": uuid4().hex}).first()
    return None if row is None else LeasedOperation(*row)


def release(executor: Executor, operation: LeasedOperation) -> None:
    """End the lease, so that others take their turn."""
    executor.execute(_RELEASE, {"id": operation.id, "leased_by": operation.leased_by})


def do_group(session: Session, operation: LeasedOperation, rules: RetryRules, lease: timedelta) -> GroupResult:
    """Change the next group of prompts, or undo that, and renew the lease. The caller commits.

    Raises:
        OperationLostError: the lease is another worker's by now, or the operation is being undone.
    """
    is_undo = operation.status == OperationStatus.UNDOING
    wanted = {"id": operation.id, "outcome": PromptOutcome.CHANGED if is_undo else None, "limit": GROUP}
    prompt_ids = session.execute(_NEXT, wanted).scalars().all()
    if not prompt_ids:
        _end(session, operation, OperationStatus.UNDONE if is_undo else OperationStatus.COMPLETED)
        return GroupResult(is_last=True)
    if is_undo:
        result, users = _undo(session, operation, prompt_ids, rules)
        counts = {"changed": 0, "skipped": 0, "undone": users.total()}
        act = "prompts.retry_undone"
    else:
        if operation.action == Action.RETRY:
            result, changed, act = *_retry(session, operation, prompt_ids, rules), "prompts.retried"
        else:
            result, changed, act = *_cancel(session, operation, prompt_ids), "prompts.cancelled"
        users = Counter(prompt.user_id for prompt in changed)
        _record(session, operation, prompt_ids, changed)
        counts = {"changed": len(changed), "skipped": len(prompt_ids) - len(changed), "undone": 0}
    audit.record_all(session, operation.actor, act, users, operation_id=operation.id)
    held = {"id": operation.id, "leased_by": operation.leased_by, "status": operation.status, "lease": lease}
    if not session.execute(_ADVANCE, {**held, "reached": prompt_ids[-1], **counts}).rowcount:  # type: ignore[attr-defined]
        raise OperationLostError
    return result


def _end(session: Session, operation: LeasedOperation, status: OperationStatus) -> None:
    held = {"id": operation.id, "leased_by": operation.leased_by, "status": operation.status}
    counts = session.execute(_END, {**held, "ended": status}).first()
    if counts is None:
        raise OperationLostError
    audit.record(
        session, operation.actor, "operation.ended", None, operation_id=operation.id, status=status, **counts._mapping
    )


def _retry(
    session: Session, operation: LeasedOperation, prompt_ids: Sequence[int], rules: RetryRules
) -> tuple[GroupResult, Sequence[Any]]:
    """Requeue the prompts that have not changed since the operation began and whose budgets are not used up."""
    user_ids = session.scalars(select(Prompt.user_id).where(Prompt.id.in_(prompt_ids)).distinct()).all()
    scheduling.lock_users(session, user_ids)
    columns = (*budgets.RESERVED, Prompt.batch_id)
    retriable = (
        Prompt.status.in_(RETRIABLE),
        Prompt.completed_at == OperationPrompt.changed_at,
        Prompt.emptied_at.is_(None),
        Prompt.route.in_(rules.models),
        User.deleted_at.is_(None),
    )
    locked = _of_group(columns, operation, prompt_ids).join(User, User.id == Prompt.user_id).where(*retriable)
    found = session.execute(locked.with_for_update(key_share=True, of=Prompt)).all()
    wanted = [Reservation(each.user_id, each.key_id, each.reserved_tokens) for each in found]
    if any(each.reserved_tokens for each in wanted):
        verdicts = budgets.check(session, wanted, rules.monthly_tokens)
        found = [each for each, refusal in zip(found, verdicts, strict=True) if refusal is None]
    changes = submission.requeued(grace=rules.grace, attempts=rules.attempts)
    session.execute(update(Prompt).where(Prompt.id.in_([each.id for each in found])).values(changes))
    claimable = scheduling.grant_turns(session, user_ids, grace=rules.grace, running_limit=rules.running_limit)
    return GroupResult(claimable=claimable), found


def _cancel(
    session: Session, operation: LeasedOperation, prompt_ids: Sequence[int]
) -> tuple[GroupResult, Sequence[Any]]:
    """Cancel the prompts that have neither ended nor been retried since the operation began."""
    columns = (*budgets.RESERVED, Prompt.batch_id)
    unfinished = (Prompt.status.in_(UNFINISHED), Prompt.queued_at == OperationPrompt.changed_at)
    locked = _of_group(columns, operation, prompt_ids).where(*unfinished)
    found = session.execute(locked.with_for_update(key_share=True, of=Prompt)).all()
    return GroupResult(finished=completion.cancel(session, found, error=_CANCELLED)), found


def _of_group(columns: Sequence[Any], operation: LeasedOperation, prompt_ids: Sequence[int]) -> Select[Any]:
    """Select columns of the prompts, in the order of their ids, beside their rows of the operation."""
    theirs = (OperationPrompt.prompt_id == Prompt.id) & (OperationPrompt.operation_id == operation.id)
    return select(*columns).join(OperationPrompt, theirs).where(Prompt.id.in_(prompt_ids)).order_by(Prompt.id)


def _undo(
    session: Session, operation: LeasedOperation, prompt_ids: Sequence[int], rules: RetryRules
) -> tuple[GroupResult, Counter[int]]:
    """Restore the retried prompts that no worker has claimed since."""
    user_ids = session.scalars(select(Prompt.user_id).where(Prompt.id.in_(prompt_ids)).distinct()).all()
    scheduling.lock_users(session, user_ids)
    restored = session.execute(_RESTORE, {"id": operation.id, "prompt_ids": list(prompt_ids)})
    users = Counter(restored.scalars())
    claimable = scheduling.grant_turns(session, user_ids, grace=rules.grace, running_limit=rules.running_limit)
    return GroupResult(claimable=claimable), users


def _record(session: Session, operation: LeasedOperation, prompt_ids: Sequence[int], changed: Sequence[Any]) -> None:
    """Store the outcome of each prompt of the group."""
    session.execute(
        _RECORD,
        {
            "operation_id": operation.id,
            "prompt_ids": list(prompt_ids),
            "ids": [each.id for each in changed],
            "attempts": [each.attempt for each in changed],
            "batch_ids": [each.batch_id for each in changed],
        },
    )
