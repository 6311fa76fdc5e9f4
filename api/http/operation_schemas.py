"""Operations, models and workers for admins: pydantic models, and functions that render what the database has."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from api.http.fields import MAX_ID, MAX_MODEL_LENGTH, Cursor, Id, Moment, NotBlank, PageSize, Storable, Time
from api.http.openapi.models import Answer, Body, Parameters, Query, example
from api.http.usage_schemas import UserName
from shared import timestamps
from shared.db.models import Action, OperationStatus, Status
from shared.openai import ids
from shared.openai.ids import IdPrefix
from shared.operators.filters import OperationFilter
from shared.operators.operations import MAX_PROMPTS, ModelCount, OperationRow
from shared.operators.worker_hosts import Host
from shared.prompts.overview import ERROR_CHARACTERS
from shared.request_body import whole

MAX_IDS = 1_000

_Id = Annotated[int, Field(ge=1, le=MAX_ID), BeforeValidator(whole)]


class OperationPath(Parameters):
    operation_id: int = Field(ge=1, le=MAX_ID, description="The operation's `id`.", json_schema_extra=example(1))


class ModelPath(Parameters):
    model: str = Field(
        max_length=MAX_MODEL_LENGTH, description="The model's route.", json_schema_extra=example("default")
    )


class OperationsQuery(Query):
    limit: PageSize = 20
    cursor: Cursor = None


class OperationFilterBody(Body):
    """A filter of prompts: all fields must apply. An empty filter matches all prompts that the action can change."""

    status: Annotated[Status, Field(strict=False)] | None = Field(
        None,
        description="Retry: `failed` (the default) or `cancelled`. Cancel: `queued` or `processing`; both by default.",
    )
    model: Annotated[Storable, Field(max_length=MAX_MODEL_LENGTH)] | None = Field(
        None, description="The model's route."
    )
    user: _Id | None = Field(None, description="The `id` of their user.")
    error: Annotated[NotBlank, Field(max_length=ERROR_CHARACTERS)] | None = Field(
        None, description="How their error begins, as `GET /admin/failures/` shows it."
    )
    since: Time | None = Field(
        None, description="Retry: prompts that ended then or later. Cancel: prompts that were queued then or later."
    )
    until: Time | None = Field(None, description="The same, before this time.")
    batch: Annotated[str, Field(pattern=r"^batch_[1-9][0-9]{0,17}$")] | None = Field(
        None, description="The lines of this batch."
    )
    ids: list[_Id] | None = Field(None, min_length=1, max_length=MAX_IDS, description="These prompts.")
    operation: _Id | None = Field(None, description="Those that this operation has changed.")

    def filter(self) -> OperationFilter:
        given = {name: getattr(self, name) for name in OperationFilter._fields}
        return OperationFilter(**given | {"batch": self.batch and ids.parse(IdPrefix.BATCH, self.batch)})

    def as_json(self) -> dict[str, Any]:
        """The fields that were given."""
        given = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        return {
            name: timestamps.rfc3339(value) if isinstance(value, datetime) else value for name, value in given.items()
        }


class NewOperation(Body):
    """A retry or cancel of all prompts that match a filter."""

    action: Annotated[Action, Field(strict=False)]
    filter: OperationFilterBody = Field(default_factory=OperationFilterBody)
    dry_run: bool = Field(False, description="Only count.")
    expected_count: Annotated[int, Field(ge=0, le=MAX_ID), BeforeValidator(whole)] | None = Field(
        None,
        description="The confirmed count: if more prompts match, nothing is changed. Required unless it is a dry run.",
    )


class PauseBody(Body):
    """Why a model is paused."""

    reason: Annotated[NotBlank, Field(max_length=200)] | None = Field(
        None, description="The reason, shown to users whose prompts wait."
    )


class ModelPrompts(Answer):
    """How many prompts of a model match."""

    model: str
    prompts: int
    users: int = Field(description="Of how many users.")


class OperationCount(Answer):
    """The result of a dry run: what an operation would change."""

    action: Action
    filter: dict[str, Any]
    count: int = Field(description="How many prompts match: the `expected_count` of the operation.")
    max_count: int = Field(description="How many prompts an operation may have.")
    users: int = Field(description="Of how many users.")
    models: list[ModelPrompts]


class AdminOperation(Answer):
    """A retry or cancel of many prompts. Workers carry it out."""

    id: Id
    action: Action
    filter: dict[str, Any]
    status: OperationStatus
    total: int = Field(description="How many prompts matched when it began.")
    changed: int = Field(description="How many were retried or cancelled so far.")
    skipped: int = Field(
        description="How many were not: they had changed, their texts were removed, or their budget is used up."
    )
    undone: int = Field(description="How many of the changed ones were restored.")
    created_at: Moment
    ended_at: Moment | None
    actor: UserName | None = Field(description="Who began it.")
    key_id: Id | None = Field(description="With which API key; null for a login.")


class WorkerHost(Answer):
    """A worker host."""

    host: str
    pid: int = Field(description="Of its main process.")
    version: str
    pool: str = Field(description="Whether it answers prompts in `threads` or in processes (`prefork`).")
    concurrency: int = Field(description="How many tasks it runs at a time.")
    models: list[str] = Field(description="The models that it answers.")
    active_tasks: int = Field(description="How many tasks it ran when it was last seen.")
    started_at: Moment
    seen_at: Moment
    is_lost: bool = Field(
        description="Whether it was not seen for 30 seconds: it was stopped, or cannot reach PostgreSQL."
    )


def operation_count(action: Action, shown: dict[str, Any], counts: list[ModelCount]) -> dict[str, Any]:
    """Render counts, that of all models first, as an OperationCount."""
    total, *models = counts
    return {
        "action": action,
        "filter": shown,
        "count": total.prompts,
        "max_count": MAX_PROMPTS,
        "users": total.users,
        "models": [each._asdict() for each in models],
    }


def admin_operation(operation: OperationRow) -> dict[str, Any]:
    """Render an operation as an AdminOperation."""
    values = operation._asdict() | {"created_at": timestamps.rfc3339(operation.created_at)}
    actor_id, name = values.pop("actor_id"), values.pop("actor_name")
    actor = None if actor_id is None else {"id": actor_id, "username": name}
    return values | {"ended_at": timestamps.rfc3339_or_none(operation.ended_at), "actor": actor}


def worker_host(host: Host) -> dict[str, Any]:
    """Render a host as a WorkerHost."""
    times = {name: timestamps.rfc3339(getattr(host, name)) for name in ("started_at", "seen_at")}
    return host._asdict() | times
