"""What admins send and get: pydantic models that describe it, and functions that render what the database has."""

from typing import Annotated, Any

from pydantic import Field

from api.http.fields import MAX_ID, Cursor, Id, Moment, PageSize, Time
from api.http.openapi.models import Answer, Body, Parameters, Query, example
from api.http.usage_schemas import UsageTotal, UserName, usage_total
from shared import timestamps
from shared.accounts.audit import Entry
from shared.accounts.names import MAX_USERNAME_LENGTH
from shared.accounts.overview import KeyOverview, UserOverview
from shared.prompts.overview import FailureGroup, Load, ProviderState, Running

_UserId = Annotated[int | None, Field(ge=1, le=MAX_ID, description="Only of the user with this `id`.")]


class UserPath(Parameters):
    user_id: int = Field(ge=1, le=MAX_ID, description="The user's `id`.", json_schema_extra=example(1))


class UsersQuery(Query):
    username: str | None = Field(None, max_length=MAX_USERNAME_LENGTH, description="Only the user of this name.")
    limit: PageSize = 20
    cursor: Cursor = None


class EntriesQuery(Query):
    """Of lists that can be limited to a user."""

    user: _UserId = None
    limit: PageSize = 20
    cursor: Cursor = None


class FailuresQuery(Query):
    since: Time | None = Field(None, description="Only later ones; by default those of the last 24 hours.")


class UserChange(Body):
    """A change of a user. What is left out stays."""

    is_admin: bool | None = Field(None, description="Whether the user is an admin.")
    is_viewer: bool | None = Field(None, description="Whether the user sees what admins see, and changes nothing.")


class AdminUser(Answer):
    """A user as admins see them."""

    id: Id
    username: str
    is_admin: bool
    is_viewer: bool
    created_at: Moment
    logins: int = Field(description="How many logins are live.")
    keys: int = Field(description="How many API keys are live.")
    unfinished: int = Field(description="How many prompts have not ended.")
    has_password: bool = Field(description="Whether the user can log in with a password.")
    has_identity: bool = Field(description="Whether the user can sign in with an identity provider.")
    this_month: UsageTotal = Field(description="What was used since the first of the month (UTC).")


class AdminKey(Answer):
    """An API key as admins see it."""

    id: Id
    user: UserName
    name: str
    prefix: str = Field(description="The key's first characters.")
    scopes: list[str]
    models: list[str] | None = Field(description="The models that it may use; null for all.")
    rate_limit: str | None
    monthly_tokens: int | None = Field(description="Its budget of a calendar month (UTC).")
    created_at: Moment
    expires_at: Moment | None
    last_used_at: Moment | None
    revoked_at: Moment | None
    this_month: UsageTotal = Field(description="What was used since the first of the month (UTC).")


class QueueLoad(Answer):
    """The unfinished prompts of a model, of all users or of one."""

    model: str = Field(description="The model's route.")
    user: UserName | None = Field(description="Null for all users.")
    queued: int
    running: int
    oldest_waiting_seconds: float | None = Field(description="For how long the oldest queued one has waited.")


class RunningPrompt(Answer):
    """A prompt that is being answered. Its text is not shown."""

    id: Id
    user: UserName
    model: str
    attempt: int
    queued_at: Moment
    leased_until: Moment = Field(description="When it is queued again, unless its worker renews the lease.")


class ModelPause(Answer):
    """The pause of a model by an operator."""

    since: Moment
    by: UserName
    reason: str | None


class Provider(Answer):
    """The state of a model and its provider."""

    model: str
    pause: ModelPause | None = Field(description="Null unless an operator has paused it.")
    paused_until: Moment | None = Field(description="When the provider is tried again; null while it is available.")
    detail: str | None = Field(description="Why it is unavailable.")
    unavailable_since: Moment | None
    failures: int = Field(description="How often in succession it was unavailable.")
    concurrency: float | None = Field(description="How many prompts it gets at a time, because it refused more.")


class QueueState(Answer):
    """What waits and what runs."""

    models: list[QueueLoad]
    users: list[QueueLoad] = Field(description="The users with the most unfinished prompts.")
    running: list[RunningPrompt] = Field(description="At most 100, the oldest first.")
    providers: list[Provider]


class FailuresOfError(Answer):
    """Failures with the same error."""

    error: str | None = Field(description="Its first 200 characters; null if it was removed after `RETENTION_DAYS`.")
    count: int
    users: int = Field(description="Of how many users.")
    first_at: Moment
    last_at: Moment
    newest_prompt_id: Id
    model: str | None = Field(description="The model of that prompt; null if it was deleted.")


class AuditedAct(Answer):
    """An entry of the audit trail."""

    id: Id
    at: Moment
    actor: UserName | None = Field(description="Who acted; null on the command line.")
    key_id: Id | None = Field(description="With which API key; null for a login.")
    action: str = Field(description="Such as `account.deleted`.")
    user: UserName | None = Field(description="Whose account, key or prompts it was.")
    details: dict[str, Any]
    address: str = Field(description="The client's address, or `command line`.")
    request_id: str | None


def admin_user(user: UserOverview) -> dict[str, Any]:
    """Render a user as an AdminUser."""
    values = user._asdict() | {"created_at": timestamps.rfc3339(user.created_at)}
    return values | {"this_month": usage_total(values.pop("used"))}


def admin_key(key: KeyOverview) -> dict[str, Any]:
    """Render an API key as an AdminKey."""
    values = _with_times(key._asdict(), "created_at", "expires_at", "last_used_at", "revoked_at")
    user = {"id": values.pop("user_id"), "username": values.pop("username")}
    return values | {"user": user, "this_month": usage_total(values.pop("used"))}


def queue_load(load: Load) -> dict[str, Any]:
    """Render a load as a QueueLoad."""
    values = load._asdict()
    return values | {"user": _user_name(values.pop("user_id"), values.pop("username"))}


def running_prompt(prompt: Running) -> dict[str, Any]:
    """Render a prompt as a RunningPrompt."""
    values = _with_times(prompt._asdict(), "queued_at", "leased_until")
    return values | {"user": _user_name(values.pop("user_id"), values.pop("username"))}


def provider(state: ProviderState) -> dict[str, Any]:
    """Render the state of a provider."""
    values = _with_times(state._asdict(), "paused_until", "unavailable_since", "held_since")
    since, reason = values.pop("held_since"), values.pop("hold_reason")
    by = _user_name(values.pop("held_by"), values.pop("held_by_name"))
    pause = None if since is None else {"since": since, "by": by, "reason": reason}
    return values | {"detail": values.pop("pause_detail"), "pause": pause}


def failures_of_error(group: FailureGroup) -> dict[str, Any]:
    """Render failures as a FailuresOfError."""
    values = _with_times(group._asdict(), "first_at", "last_at")
    return values | {"count": values.pop("number")}


def audited_act(entry: Entry) -> dict[str, Any]:
    """Render an entry as an AuditedAct."""
    values = _with_times(entry._asdict(), "at")
    actor = _user_name(values.pop("actor_id"), values.pop("actor_name"))
    return values | {"actor": actor, "user": _user_name(values.pop("user_id"), values.pop("username"))}


def _with_times(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return values | {name: timestamps.rfc3339_or_none(values[name]) for name in names}


def _user_name(user_id: int | None, username: str | None) -> dict[str, Any] | None:
    return None if user_id is None else {"id": user_id, "username": username}
