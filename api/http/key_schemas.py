"""API keys in requests and responses: pydantic models, and functions that render what the database has."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from api.http.fields import MAX_ID, Id, Moment, NotBlank, Time
from api.http.openapi.models import Answer, Body, Parameters, example
from shared import timestamps
from shared.accounts.budgets import Budget
from shared.db.models import DEFAULT_SCOPES, ApiKey, Scope
from shared.request_body import whole
from shared.settings import values

MAX_TOKENS = 10**15


def _in_the_future(time: datetime) -> datetime:
    if time <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return time


class NewApiKey(Body):
    """A new API key. What is left out is not limited."""

    name: NotBlank = Field(max_length=100, description="What it is for. It is shown in lists.")
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(
        list(DEFAULT_SCOPES), min_length=1, max_length=len(Scope), description="What it may do."
    )
    models: list[Annotated[str, Field(max_length=100)]] | None = Field(
        None, min_length=1, max_length=100, description="The models that it may use; null: all."
    )
    expires_at: Annotated[Time, AfterValidator(_in_the_future)] | None = Field(
        None, description="Until when it is valid; in the future."
    )
    rate_limit: Annotated[str, Field(max_length=100), AfterValidator(values.rate_limit)] | None = Field(
        None,
        description="How many prompts it may submit, such as `1/second;100/hour`, in addition to the user's limit.",
    )
    monthly_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS), BeforeValidator(whole)] | None = Field(
        None, description="How many tokens its prompts may use in a calendar month (UTC)."
    )


class KeyPath(Parameters):
    key_id: int = Field(ge=1, le=MAX_ID, description="The key's `id`.", json_schema_extra=example(1))


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
    used_tokens: int | None = Field(description="How many of `monthly_tokens` this month's attempts used.")
    reserved_tokens: int | None = Field(description="How many of `monthly_tokens` unfinished prompts reserve.")
    created_at: Moment
    last_used_at: Moment | None = Field(description="When it was last used, to the minute.")


class CreatedApiKey(ApiKeyResource):
    """A new API key."""

    key: str = Field(description="The key. It is not stored and never shown again.")


def api_key_resource(key: ApiKey, budget: Budget | None) -> dict[str, Any]:
    """Render an API key, and the state of its budget if it has one, as an ApiKeyResource."""
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "models": key.models,
        "expires_at": timestamps.rfc3339_or_none(key.expires_at),
        "rate_limit": key.rate_limit,
        "monthly_tokens": key.monthly_tokens,
        "used_tokens": None if budget is None else budget.used_tokens,
        "reserved_tokens": None if budget is None else budget.reserved_tokens,
        "created_at": timestamps.rfc3339(key.created_at),
        "last_used_at": timestamps.rfc3339_or_none(key.last_used_at),
    }
