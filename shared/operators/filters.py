"""Filters of operations, as conditions in SQL on a row of `prompts`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from shared.db.models import Action, Status

#: The statuses of prompts that each action can change, and its default. Cancelled prompts were cancelled on purpose, so
#: they are retried only if the filter says so.
STATUSES = {Action.RETRY: (Status.FAILED, Status.CANCELLED), Action.CANCEL: (Status.QUEUED, Status.PROCESSING)}
_DEFAULT_STATUSES = STATUSES | {Action.RETRY: (Status.FAILED,)}

#: The column that says when a prompt became what the action changes. It has another value after each later change.
SINCE_WHEN = {Action.RETRY: "completed_at", Action.CANCEL: "queued_at"}

_CONDITIONS = {
    "model": "prompts.route = :model",
    "user": "prompts.user_id = :user",
    "error": "starts_with(prompts.error, :error)",
    "batch": "prompts.batch_id = :batch",
    "ids": "prompts.id = ANY(CAST(:ids AS bigint[]))",
    "operation": "EXISTS (SELECT FROM operation_prompts AS earlier WHERE earlier.operation_id = :operation"
    " AND earlier.prompt_id = prompts.id AND earlier.outcome = 'changed')",
}


class OperationFilter(NamedTuple):
    """A filter. It matches prompts to which all fields apply that are not None."""

    status: str | None = None
    model: str | None = None  #: the model route
    user: int | None = None
    error: str | None = None  #: how the error begins
    since: datetime | None = None  #: retry: failed or cancelled then or later. cancel: queued then or later
    until: datetime | None = None  #: the same, before
    batch: int | None = None
    ids: Sequence[int] | None = None
    operation: int | None = None  #: those that an earlier operation has changed


def conditions(action: Action, wanted: OperationFilter) -> tuple[str, dict[str, Any]]:
    """The condition in SQL, and its parameters. It implies that of a partial index, so that no other rows are read."""
    given = {name: value for name, value in wanted._asdict().items() if value is not None}
    statuses = (given.pop("status"),) if "status" in given else _DEFAULT_STATUSES[action]
    time = SINCE_WHEN[action]
    parts = [_CONDITIONS[name] for name in given if name in _CONDITIONS]
    parts += [f"prompts.{time} >= :since"] if "since" in given else []
    parts += [f"prompts.{time} < :until"] if "until" in given else []
    if action == Action.RETRY:
        # Texts that were removed cannot be answered again.
        parts += ["prompts.status IN ('failed', 'cancelled')", "prompts.emptied_at IS NULL"]
    else:
        parts += ["prompts.due_at IS NOT NULL"]
    return " AND ".join(["prompts.status = ANY(:statuses)", *parts]), given | {"statuses": list(statuses)}
