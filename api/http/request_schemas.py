"""Request bodies, headers and parameters: pydantic models that validate requests and describe the API."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from api.http.openapi.models import Body, Parameters, Query, example
from shared.accounts.users import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, USERNAME_PATTERN, check_username
from shared.db.models import Priority, Status

MAX_PROMPT_LENGTH = 100_000
#: The text is part of a URL, and gunicorn accepts 8 KiB.
MAX_SEARCH_LENGTH = 8_000
MAX_WAIT_SECONDS = 60
MAX_HISTORY = 20
MAX_ID = 2**63 - 1

# The validators below, as JSON Schema patterns.
_STORABLE = r"^[^\u0000]*$"
_STORABLE_NOT_BLANK = r"^[^\u0000]*\S[^\u0000]*$"


def _storable(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


def _not_blank(text: str) -> str:
    if not re.search(r"\S", text):
        raise ValueError("must not be blank")
    return _storable(text)


def _allowed_username(username: str) -> str:
    check_username(username)
    return username


def _whole(number: object) -> object:
    """Accept 4.0 as 4: JSON has one kind of number."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


NotBlank = Annotated[
    str, Field(min_length=1, json_schema_extra={"pattern": _STORABLE_NOT_BLANK}), AfterValidator(_not_blank)
]
Storable = Annotated[str, Field(json_schema_extra={"pattern": _STORABLE}), AfterValidator(_storable)]
SeqNumber = Annotated[int, Field(ge=0, le=MAX_ID), BeforeValidator(_whole)]
Username = Annotated[str, Field(json_schema_extra={"pattern": USERNAME_PATTERN}), AfterValidator(_allowed_username)]
Password = Annotated[
    str,
    Field(
        min_length=MIN_PASSWORD_LENGTH,
        max_length=MAX_PASSWORD_LENGTH,
        json_schema_extra={"pattern": _STORABLE, "format": "password"},
    ),
    AfterValidator(_storable),
]


class Registration(Body):
    """A new user."""

    username: Username = Field(description="Letters, digits, `_`, `.` and `-`; it cannot be changed.")
    password: Password = Field(description="Stored as an argon2id hash only.")


class Credentials(Body):
    """A username and its password."""

    username: Annotated[
        str,
        Field(min_length=1, max_length=150, json_schema_extra={"pattern": _STORABLE}),
        AfterValidator(_storable),
    ]
    password: Annotated[
        str, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH, json_schema_extra={"format": "password"})
    ]


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


class PageQuery(Query):
    limit: int = Field(20, ge=1, le=100, description="How many to return.")
    status: Status | None = Field(None, description="Only prompts with this status.")
    cursor: str | None = Field(
        None,
        max_length=64,
        description="The start of the page, as it is in the `Link` to the next page.",
        json_schema_extra=example("YmVmb3JlOjQx"),
    )


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
