"""Response bodies: pydantic models that describe the API, and functions that render what the database has."""

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field

from api.auth.principal import KeyGrant
from api.http.openapi.models import Answer
from shared import timestamps
from shared.accounts import usage
from shared.accounts.budgets import Budget
from shared.accounts.export import ExportedPrompt
from shared.accounts.logins import LiveLogin
from shared.accounts.usage import UsageBy
from shared.db.models import ApiKey, Priority, Scope, Status, User
from shared.prompts.answer import FinishReason
from shared.prompts.queries import PromptRow
from shared.prompts.resource import prompt_resource
from shared.settings import Settings

Id = Annotated[int, Field(json_schema_extra={"format": "int64"})]
Day = Annotated[str, Field(json_schema_extra={"format": "date"})]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class NewUser(Answer):
    """A registered user."""

    id: Id
    username: str
    created_at: Moment


class UserLimits(Answer):
    """The limits of one user, each with the name of its setting; null where there is none."""

    prompt_rate_limit: str = Field(description="How many prompts in which time, with API keys and without.")
    user_backlog_limit: int = Field(description="Unfinished prompts.")
    user_running_limit: int | None = Field(description="Prompts that run at the same time.")
    user_socket_limit: int = Field(description="WebSockets, for each API process.")
    user_wait_limit: int = Field(description="Streams, exports and waiting requests, for each API process.")
    user_search_limit: int = Field(description="Searches at the same time, for each API process.")
    user_monthly_tokens: int | None = Field(description="Tokens in a calendar month (UTC).")


class AccountKey(Answer):
    """What the API key of the caller may do, in addition to the user's limits."""

    id: Id
    scopes: list[Scope]
    models: list[str] | None = Field(description="The models that it may use; null for all.")
    rate_limit: str | None = Field(description="How many prompts in which time.")
    monthly_tokens: int | None = Field(description="Tokens in a calendar month (UTC).")


class Account(Answer):
    """The caller's account."""

    id: Id
    username: str
    is_admin: bool
    created_at: Moment
    authenticated_by: Literal["login", "api_key"]
    key: AccountKey | None = Field(description="The API key, if the caller has authenticated by one.")
    limits: UserLimits


class LoginEntry(Answer):
    """A login of the caller that has not ended."""

    id: Annotated[str, Field(json_schema_extra={"format": "uuid"})]
    created_at: Moment | None = Field(description="Null if an earlier release of the service has started it.")
    last_used_at: Moment | None = Field(description="When it began, or was last refreshed.")
    expires_at: Moment = Field(description="When it ends, unless it is refreshed before.")
    address: str | None = Field(description="The client's address at the last refresh.")
    user_agent: str | None = Field(description="The client's `User-Agent` at the last refresh, shortened.")
    is_current: bool = Field(description="Whether the caller uses it.")


class TokenPair(Answer):
    """The tokens of a login."""

    access: str = Field(description="For calls, as `Authorization: Bearer <access>`; valid for 15 minutes by default.")
    refresh: str = Field(description="For the next pair; single-use.")


class ApiKeyResource(Answer):
    """An API key, without the key itself."""

    id: Id
    name: str
    prefix: str = Field(description="Its first characters, by which one recognises it.")
    scopes: list[Scope] = Field(description="What it may do.")
    models: list[str] | None = Field(description="The models that it may use; null: all.")
    expires_at: Moment | None = Field(description="Until when it is valid; null: until it is revoked.")
    rate_limit: str | None = Field(description="How many prompts it may submit, in addition to the user's limit.")
    monthly_tokens: int | None = Field(description="How many tokens its prompts may use in a calendar month (UTC).")
    created_at: Moment
    last_used_at: Moment | None = Field(description="When it was last used, to the minute.")


class CreatedApiKey(ApiKeyResource):
    """A new API key."""

    key: str = Field(description="The key. It is not stored and never shown again.")


class TokenUsage(Answer):
    """The tokens that an answer used; none if it came from an earlier prompt."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Waiting(Answer):
    """Why a queued prompt cannot be claimed, whatever its position."""

    reason: Literal["provider"]
    detail: str = Field(description="The provider's latest error.")
    next_attempt_at: Moment = Field(description="When the provider is tried again.")


class PromptResource(Answer):
    """A prompt and its answer."""

    id: Id
    user: str = Field(description="The username.")
    prompt_text: str
    response_text: str | None = Field(description="The answer; null unless `completed`, and once it is emptied.")
    status: Status = Field(description="`queued` → `processing` → `completed`, `failed` or `cancelled`.")
    websocket: bool = Field(description="Whether its events are sent to the user's sockets.")
    attempt: int = Field(description="How many times a worker has started to answer it.")
    error: str | None = Field(description="Why it `failed`, or why the previous attempt did.")
    history: int = Field(description="How many earlier exchanges the model gets as context.")
    priority: Priority = Field(description="`low` prompts come after all others, but get at least a tenth of the work.")
    position: int | None = Field(
        description="The position of a `queued` prompt in the queue; 1 is next. It may rise when users submit who have "
        "nothing queued. Null once a worker has claimed the prompt, during the backoff after a failed attempt, over "
        "`USER_RUNNING_LIMIT`, beyond the first 10,000, and in the response to a submission with more than 100 ahead."
    )
    waiting_for: Waiting | None = Field(description="Why a `queued` prompt waits, if not only for its turn.")
    model: str | None = Field(description="The model that answered, if known.")
    usage: TokenUsage | None = Field(description="The tokens that the answer used, if known.")
    finish_reason: FinishReason | None = Field(
        description="Why the model stopped: `stop`, the answer is complete; `length`, it is cut off at the limit of "
        "tokens; `content_filter`, the provider's filter withheld the rest; `tool_calls`, the model wants to call "
        "tools. Null if not known."
    )
    cached_from: Id | None = Field(description="The `id` of the prompt whose answer was used.")
    created_at: Moment
    completed_at: Moment | None = Field(description="When it ended, with any status.")
    emptied_at: Moment | None = Field(
        description="When its texts were removed, because it was older than `RETENTION_DAYS`. Then `prompt_text` is "
        "empty, and `response_text` and `error` are null."
    )


class SimilarPrompt(Answer):
    """A completed prompt that is similar to the query."""

    id: Id
    user: str
    prompt_text: str
    response_text: str
    similarity_score: float = Field(
        ge=0, description="The squared L2 distance of the vectors: 0 identical, 2 unrelated, 4 opposite."
    )
    created_at: Moment


class UsageKey(Answer):
    """The API key of a row of the usage."""

    id: Id
    name: str
    prefix: str = Field(description="The key's first characters.")


class UsageTotal(Answer):
    """What was used."""

    prompts: int = Field(
        description="How many prompts finished: completed, failed or cancelled. A retried one counts again."
    )
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float = Field(description="At the prices of the time, in the currency of `INPUT_PRICE` and `OUTPUT_PRICE`.")


class UsageRow(UsageTotal):
    """What was used: on a day, of a model, or with an API key."""

    day: Day | None = Field(None, description="By day: the day (UTC).")
    model: str | None = Field(None, description="By model: the route's name.")
    key: UsageKey | None = Field(None, description="By key: the API key; null for logins.")


class BudgetState(Answer):
    """A budget of tokens in a calendar month (UTC)."""

    key: Id | None = Field(description="The API key's `id`; null for the budget of all of the user's prompts.")
    monthly_tokens: int
    used_tokens: int = Field(description="What this month's attempts used.")
    reserved_tokens: int = Field(description="What unfinished prompts reserve.")
    resets_at: Moment = Field(description="When the next month begins.")


class UsageReport(Answer):
    """What was used, and the budgets."""

    by: Literal["day", "model", "key"]
    since: Day = Field(description="The first day.")
    until: Day = Field(description="The last day.")
    rows: list[UsageRow] = Field(description="Only those with any usage.")
    total: UsageTotal
    budgets: list[BudgetState]


class FieldError(Answer):
    """An invalid field, header or parameter."""

    field: str = Field(description="Its name, with dots if it is nested.")
    message: str


class Problem(Answer):
    """An error (RFC 9457)."""

    type: str = Field(
        description="The kind of error: a URN of this service, or `about:blank` if the status says it all.",
        json_schema_extra={"format": "uri"},
    )
    title: str = Field(description="The status's name.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What went wrong, in words.")
    errors: list[FieldError] | None = Field(None, description="For an invalid request: what is wrong with it.")
    resets_at: Moment | None = Field(None, description="For an exceeded budget: when it begins again.")


class Health(Answer):
    """The state of a process."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str = Field(description="The version of Promptwire.")
    checks: dict[str, str] = Field(description="By dependency: `ok`, or what is wrong.")


def api_key_resource(key: ApiKey) -> dict[str, Any]:
    """Render an API key as an ApiKeyResource."""
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "models": key.models,
        "expires_at": timestamps.rfc3339_or_none(key.expires_at),
        "rate_limit": key.rate_limit,
        "monthly_tokens": key.monthly_tokens,
        "created_at": timestamps.rfc3339(key.created_at),
        "last_used_at": timestamps.rfc3339_or_none(key.last_used_at),
    }


def account_resource(user: User, key: KeyGrant | None, settings: Settings) -> dict[str, Any]:
    """Render the account of a caller as an Account."""
    return {
        "id": user.id,
        "username": user.username,
        "is_admin": user.is_admin,
        "created_at": timestamps.rfc3339(user.created_at),
        "authenticated_by": "login" if key is None else "api_key",
        "key": None if key is None else _account_key(key),
        "limits": {name: getattr(settings, name) for name in UserLimits.model_fields},
    }


def _account_key(key: KeyGrant) -> dict[str, Any]:
    return {
        "id": key.id,
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "rate_limit": key.rate_limit,
        "monthly_tokens": key.monthly_tokens,
    }


def login_entry(login: LiveLogin, *, is_current: bool) -> dict[str, Any]:
    """Render a login as a LoginEntry."""
    return {
        "id": str(login.id),
        "created_at": timestamps.rfc3339_or_none(login.created_at),
        "last_used_at": timestamps.rfc3339_or_none(login.last_used_at or login.created_at),
        "expires_at": timestamps.rfc3339(login.expires_at),
        "address": login.address,
        "user_agent": login.user_agent,
        "is_current": is_current,
    }


def exported_prompt(exported: ExportedPrompt, username: str) -> dict[str, Any]:
    """Render a prompt as a line of an export: a PromptResource, and everything else that is known of it."""
    prompt = exported.prompt
    return prompt_resource(prompt, username) | {
        "request_id": exported.request_id,
        "seq": prompt.seq,
        "route": prompt.route,
        "generator": prompt.answer.generator,
        "cache": prompt.cache,
        "api_key_id": exported.key_id,
        "queued_at": timestamps.rfc3339(exported.queued_at),
        "used_prompt_tokens": exported.used_prompt_tokens,
        "used_completion_tokens": exported.used_completion_tokens,
    }


def similar_prompt(prompt: PromptRow, username: str, distance: float) -> dict[str, Any]:
    """Render a prompt as a SimilarPrompt."""
    return {
        "id": prompt.id,
        "user": username,
        "prompt_text": prompt.prompt_text,
        "response_text": prompt.answer.response_text,
        "similarity_score": distance,
        "created_at": timestamps.rfc3339(prompt.created_at),
    }


def usage_report(
    by: UsageBy, since: date, until: date, rows: Sequence[usage.UsageRow], budgets: Sequence[Budget]
) -> dict[str, Any]:
    """Render the usage as a UsageReport. `rows` are those of `by`."""
    return {
        "by": by,
        "since": since.isoformat(),
        "until": until.isoformat(),
        "rows": [{by: _usage_group(by, row.group), **_usage_sums(row)} for row in rows],
        "total": _usage_sums(usage.total(rows)),
        "budgets": [budget_state(budget) for budget in budgets if not budget.is_revoked],
    }


def budget_state(budget: Budget) -> dict[str, Any]:
    """Render a budget as a BudgetState."""
    return {
        "key": budget.key_id,
        "monthly_tokens": budget.monthly_tokens,
        "used_tokens": budget.used_tokens,
        "reserved_tokens": budget.reserved_tokens,
        "resets_at": timestamps.rfc3339(budget.resets_at),
    }


def _usage_group(by: UsageBy, group: tuple[Any, ...]) -> Any:
    first = group[0]
    if by == UsageBy.DAY:
        return first.isoformat()
    if by == UsageBy.MODEL:
        return first
    if by == UsageBy.USER:
        return dict(zip(("id", "username"), group, strict=True))
    return dict(zip(("id", "name", "prefix"), group, strict=True)) if first else None


def _usage_sums(row: usage.UsageRow) -> dict[str, Any]:
    return {
        "prompts": row.prompts,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "total_tokens": row.prompt_tokens + row.completion_tokens,
        "cost": float(row.cost),
    }
