"""Request bodies, headers and parameters: pydantic models that validate requests and describe the API."""

import re
from datetime import UTC, date, datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, WithJsonSchema

from api.http.openapi.models import Body, Parameters, Query, example
from shared import timestamps
from shared.accounts.names import (
    MAX_PASSWORD_LENGTH,
    MAX_USERNAME_LENGTH,
    MIN_PASSWORD_LENGTH,
    USERNAME_PATTERN,
    new_password,
    new_username,
)
from shared.db.models import DEFAULT_SCOPES, Priority, Scope, Status
from shared.settings import values

MAX_PROMPT_LENGTH = 100_000
#: The text is part of a URL, and gunicorn accepts 8 KiB.
MAX_SEARCH_LENGTH = 8_000
MAX_WAIT_SECONDS = 60
MAX_HISTORY = 20
MAX_ID = 2**63 - 1
MAX_TOKENS = 10**15

# The validators below, as JSON Schema patterns.
_STORABLE = r"^[^\u0000]*$"
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = _DATE + r"T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
_STORABLE_NOT_BLANK = r"^[^\u0000]*\S[^\u0000]*$"


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


def _not_blank(text: str) -> str:
    if not re.search(r"\S", text):
        raise ValueError("must not be blank")
    return _storable(text)


def _time(text: object) -> datetime:
    return timestamps.parse(text if isinstance(text, str) else "")


def _in_the_future(time: datetime) -> datetime:
    if time <= datetime.now(UTC):
        raise ValueError("must be in the future")
    return time


def _whole(number: object) -> object:
    """Accept 4.0 as 4: JSON has one kind of number."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _day(moment: object) -> date:
    """The day, in UTC, of an RFC 3339 date or time."""
    text = str(moment).upper().replace(" ", "T")
    try:
        if re.fullmatch(_DATE, text):
            return date.fromisoformat(text)
        if re.fullmatch(_TIME, text):
            text = text.replace(":60", ":59")  # a leap second is in the same day
            return datetime.fromisoformat(text).astimezone(UTC).date()
    except (ValueError, OverflowError):
        pass
    raise ValueError("must be a date, such as 2026-11-30, or a time, such as 2026-11-30T09:30:00Z")


NotBlank = Annotated[
    str, Field(min_length=1, json_schema_extra={"pattern": _STORABLE_NOT_BLANK}), AfterValidator(_not_blank)
]
Storable = Annotated[str, Field(json_schema_extra={"pattern": _STORABLE}), AfterValidator(_storable)]
SeqNumber = Annotated[int, Field(ge=0, le=MAX_ID), BeforeValidator(_whole)]
Username = Annotated[
    str,
    Field(json_schema_extra={"pattern": USERNAME_PATTERN, "maxLength": MAX_USERNAME_LENGTH}),
    AfterValidator(new_username),
]
#: A new password, in its normal form.
Password = Annotated[
    str,
    Field(
        min_length=MIN_PASSWORD_LENGTH,
        max_length=MAX_PASSWORD_LENGTH,
        json_schema_extra={"pattern": _STORABLE, "format": "password"},
    ),
    AfterValidator(new_password),
]


Day = Annotated[
    date,
    BeforeValidator(_day, json_schema_input_type=str),
    WithJsonSchema({"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}]}),
]


class Registration(Body):
    """A new user."""

    username: Username = Field(
        description="Letters, digits, `_`, `.` and `-`, unique in any case; it cannot be changed."
    )
    password: Password = Field(description="Stored as an argon2id hash only.")


class Credentials(Body):
    """A username and its password."""

    username: Annotated[
        str,
        Field(min_length=1, max_length=MAX_USERNAME_LENGTH, json_schema_extra={"pattern": _STORABLE}),
        AfterValidator(_storable),
    ]
    password: Annotated[
        str, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH, json_schema_extra={"format": "password"})
    ]


_KnownPassword = Annotated[
    str, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH, json_schema_extra={"format": "password"})
]


class PasswordChange(Body):
    """The present password, and the next one."""

    current_password: _KnownPassword
    password: Password = Field(description="The new one.")


class AccountDeletion(Body):
    """The password, because a stolen token must not be enough."""

    password: _KnownPassword


class LoginPath(Parameters):
    login_id: UUID = Field(
        description="The login's `id`.", json_schema_extra=example("6a1c0d6e-8d4f-4c43-a0c0-5d2f2a3c6a11")
    )


class RefreshToken(Body):
    """A login's newest refresh token."""

    refresh: Annotated[str, Field(min_length=1, max_length=4096)]


class Submission(Body):
    """A new prompt."""

    prompt_text: NotBlank = Field(max_length=MAX_PROMPT_LENGTH, description="The prompt; not blank.")
    websocket: bool = Field(False, description="Whether its events are sent to the user's sockets.")
    cache: bool | None = Field(
        None,
        description="Whether the answer of a nearly identical earlier prompt may be used; null means the "
        "service's default (`SEMANTIC_CACHE`).",
    )
    history: Annotated[int, Field(ge=0, le=MAX_HISTORY), BeforeValidator(_whole)] | None = Field(
        None, description="How many of the user's earlier exchanges, the most similar ones, the model gets as context."
    )
    priority: Annotated[Priority, Field(strict=False)] | None = Field(
        None,
        description="`low` prompts come after all others, but get at least a tenth of the work. Null: `default`.",
    )


class NewApiKey(Body):
    """A new API key. What is left out is not limited."""

    name: NotBlank = Field(max_length=100, description="What it is for. It is shown in lists.")
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(
        list(DEFAULT_SCOPES), min_length=1, max_length=len(Scope), description="What it may do."
    )
    models: list[Annotated[str, Field(max_length=100)]] | None = Field(
        None, min_length=1, max_length=100, description="The models that it may use; null: all."
    )
    expires_at: Annotated[datetime, BeforeValidator(_time), AfterValidator(_in_the_future)] | None = Field(
        None, description="Until when it is valid; in the future."
    )
    rate_limit: Annotated[str, Field(max_length=100), AfterValidator(values.rate_limit)] | None = Field(
        None,
        description="How many prompts it may submit, such as `1/second;100/hour`, in addition to the user's limit.",
    )
    monthly_tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS), BeforeValidator(_whole)] | None = Field(
        None, description="How many tokens its prompts may use in a calendar month (UTC)."
    )


_PREFER = "`wait=N`: wait up to N ≤ 60 seconds for the answer. Anything else is ignored."


class SubmissionHeaders(Parameters):
    idempotency_key: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")] | None = Field(
        None,
        alias="Idempotency-Key",
        description="The same key and body within 24 hours make one prompt. Use a new UUID for each prompt.",
        json_schema_extra=example("0b1c0d6e-8d4f-4c43-a0c0-5d2f2a3c6a11"),
    )
    prefer: str | None = Field(None, alias="Prefer", description=_PREFER, json_schema_extra=example("wait=10"))
    cache_control: str | None = Field(
        None,
        alias="Cache-Control",
        description="`no-cache`: generate a new answer, whatever `cache` says.",
        json_schema_extra=example("no-cache"),
    )


class ShowHeaders(Parameters):
    prefer: str | None = Field(None, alias="Prefer", description=_PREFER, json_schema_extra=example("wait=10"))
    if_none_match: str | None = Field(
        None,
        alias="If-None-Match",
        description="The `ETag` of the client's copy; 304 if the prompt has not changed since.",
        json_schema_extra=example('"queued-0-0"'),
    )


class FollowHeaders(Parameters):
    last_event_id: Annotated[str, StringConstraints(pattern=r"^([0-9]{1,18}-([0-9]{1,18}|end))?$")] | None = Field(
        None,
        alias="Last-Event-ID",
        description="The `id` of the last event that the client has received; the stream resumes after it.",
        json_schema_extra=example("1-24"),
    )


class PromptPath(Parameters):
    prompt_id: int = Field(ge=1, le=MAX_ID, description="The prompt's `id`.", json_schema_extra=example(1))


class KeyPath(Parameters):
    key_id: int = Field(ge=1, le=MAX_ID, description="The key's `id`.", json_schema_extra=example(1))


class PageQuery(Query):
    limit: int = Field(20, ge=1, le=100, description="How many to return.")
    status: Status | None = Field(None, description="Only prompts with this status.")
    cursor: str | None = Field(
        None,
        max_length=64,
        description="The start of the page, as it is in the `Link` to the next page.",
        json_schema_extra=example("YmVmb3JlOjQx"),
    )


class UsageQuery(Query):
    since: Day | None = Field(
        None, description="The first day (UTC), as a date or a time in it.", json_schema_extra=example("2026-11-01")
    )
    until: Day | None = Field(
        None, description="The last day (UTC), as a date or a time in it.", json_schema_extra=example("2026-11-30")
    )
    by: Literal["day", "model", "key"] = Field("day", description="What the rows are about.")


class SimilarQuery(Query):
    prompt: NotBlank = Field(
        max_length=MAX_SEARCH_LENGTH,
        description="The text to compare with; not blank.",
        json_schema_extra=example("tides of the ocean") | {"pattern": _STORABLE_NOT_BLANK},
    )
    limit: int = Field(5, ge=1, le=50, description="How many to return at most.")
    max_score: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="The largest `similarity_score` to return.",
        json_schema_extra=example(1.2),
    )
    cursor: str | None = Field(
        None,
        max_length=64,
        description="The start of the page, as it is in the `Link` to the rest of the results.",
        json_schema_extra=example("cmFuazoz"),
    )
