"""What clients send and get, as pydantic models: they validate requests and describe the API."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from api.http.openapi.models import Answer, Body, Parameters, Query, example
from shared import timestamps
from shared.accounts.users import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, USERNAME_PATTERN
from shared.db.models import Status
from shared.messaging import announcements
from shared.prompts.queries import PromptRow

MAX_PROMPT_LENGTH = 100_000
#: It is part of a URL, of which gunicorn takes 8 KiB.
MAX_SEARCH_LENGTH = 8_000
MAX_WAIT_SECONDS = 60
MAX_HISTORY = 20
MAX_ID = 2**63 - 1

# As JSON Schema patterns, what the validators below say.
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


def _whole(number: object) -> object:
    """JSON has but one kind of number: 4.0 is 4."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


NotBlank = Annotated[
    str, Field(min_length=1, json_schema_extra={"pattern": _STORABLE_NOT_BLANK}), AfterValidator(_not_blank)
]
Username = Annotated[str, StringConstraints(pattern=USERNAME_PATTERN)]
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
    """A user to be."""

    username: Username = Field(description="Letters, digits, `_`, `.` and `-`; it cannot be changed.")
    password: Password = Field(description="Kept only as an argon2id hash.")


class Credentials(Body):
    """Who logs in."""

    username: Annotated[
        str,
        Field(min_length=1, max_length=150, json_schema_extra={"pattern": _STORABLE}),
        AfterValidator(_storable),
    ]
    password: Annotated[
        str, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH, json_schema_extra={"format": "password"})
    ]


class RefreshToken(Body):
    """The newest refresh token of a login."""

    refresh: Annotated[str, Field(min_length=1, max_length=4096)]


class Submission(Body):
    """A prompt to be answered."""

    prompt_text: NotBlank = Field(max_length=MAX_PROMPT_LENGTH, description="What is asked; not blank.")
    websocket: bool = Field(False, description="Whether its events are sent to the user's sockets.")
    cache: bool | None = Field(
        None,
        description="Whether it may be answered from an earlier prompt that is nearly the same; null is as the "
        "service is set up (`SEMANTIC_CACHE`).",
    )
    history: Annotated[int, Field(ge=0, le=MAX_HISTORY), BeforeValidator(_whole)] | None = Field(
        None, description="How many of the user's earlier exchanges, the nearest, its answer is to know of."
    )


_PREFER = "`wait=N`: up to N ≤ 60 seconds for the answer. Anything else is ignored."


class SubmissionHeaders(Parameters):
    idempotency_key: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")] | None = Field(
        None,
        alias="Idempotency-Key",
        description="The same key and body within 24 hours make one prompt. Take a new UUID for each prompt.",
        json_schema_extra=example("0b1c0d6e-8d4f-4c43-a0c0-5d2f2a3c6a11"),
    )
    prefer: str | None = Field(None, alias="Prefer", description=_PREFER, json_schema_extra=example("wait=10"))
    cache_control: str | None = Field(
        None,
        alias="Cache-Control",
        description="`no-cache`: it is answered anew, whatever `cache` says.",
        json_schema_extra=example("no-cache"),
    )


class ShowHeaders(Parameters):
    prefer: str | None = Field(None, alias="Prefer", description=_PREFER, json_schema_extra=example("wait=10"))
    if_none_match: str | None = Field(
        None,
        alias="If-None-Match",
        description="The `ETag` of what the client has; if that is still so, 304.",
        json_schema_extra=example('"queued-0-0"'),
    )


class FollowHeaders(Parameters):
    last_event_id: Annotated[str, StringConstraints(pattern=r"^([0-9]{1,18}-([0-9]{1,18}|end))?$")] | None = Field(
        None,
        alias="Last-Event-ID",
        description="The `id` of the last event that the client has seen; what came after it is told.",
        json_schema_extra=example("1-24"),
    )


class PromptPath(Parameters):
    prompt_id: int = Field(ge=1, le=MAX_ID, description="The prompt's `id`.", json_schema_extra=example(1))


class PageQuery(Query):
    limit: int = Field(20, ge=1, le=100, description="How many to return.")
    status: Status | None = Field(None, description="Only those with this status.")
    cursor: str | None = Field(
        None,
        max_length=64,
        description="Where the page begins: take it, as it is, from the `Link` to the next page.",
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


Id = Annotated[int, Field(json_schema_extra={"format": "int64"})]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class NewUser(Answer):
    """A user who was added."""

    id: Id
    username: str
    created_at: Moment


class TokenPair(Answer):
    """What a login consists of."""

    access: str = Field(description="For calls, as `Authorization: Bearer <access>`; good for 15 minutes by default.")
    refresh: str = Field(description="For the next pair; good once.")


class TokenUsage(Answer):
    """What an answer took; nothing, if it was taken from an earlier prompt."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class PromptResource(Answer):
    """A prompt as its user sees it."""

    id: Id
    user: str = Field(description="Whose it is.")
    prompt_text: str
    response_text: str | None = Field(description="The answer; null unless it is `completed`.")
    status: Status = Field(description="`queued` → `processing` → `completed`, `failed` or `cancelled`.")
    websocket: bool = Field(description="Whether its events are sent to the user's sockets.")
    attempt: int = Field(description="How many times a worker has begun to answer it.")
    error: str | None = Field(description="Why it `failed`, or why the attempt before did.")
    history: int = Field(description="How many earlier exchanges its answer is to know of.")
    model: str | None = Field(description="The model that answered, if that is known.")
    usage: TokenUsage | None = Field(description="What the answer took, if that is known.")
    cached_from: Id | None = Field(description="The `id` of the prompt whose answer was taken.")
    created_at: Moment
    completed_at: Moment | None = Field(description="When it ended, however it did.")


class SimilarPrompt(Answer):
    """A completed prompt that is like the text asked for."""

    id: Id
    user: str
    prompt_text: str
    response_text: str
    similarity_score: float = Field(
        ge=0, description="The squared L2 distance of the two texts' vectors: 0 the same, 2 unrelated, 4 opposite."
    )
    created_at: Moment


class FieldError(Answer):
    """What is wrong with one field, header or parameter."""

    field: str = Field(description="Its name; with dots, where it is within another.")
    message: str


class Problem(Answer):
    """An error (RFC 9457)."""

    type: str = Field(
        description="What kind of error it is: a URN of ours, or `about:blank` if the status says it all.",
        json_schema_extra={"format": "uri"},
    )
    title: str = Field(description="The status in words.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What went wrong, for people.")
    errors: list[FieldError] | None = Field(None, description="Of a request that is not valid: what is wrong with it.")


class Health(Answer):
    """Whether something works."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str = Field(description="Promptwire's.")
    checks: dict[str, str] = Field(description="By part: `ok`, or what is the matter with it.")


def prompt_resource(prompt: PromptRow, username: str) -> dict[str, Any]:
    """The prompt as a PromptResource."""
    return {
        "id": prompt.id,
        "user": username,
        "prompt_text": prompt.prompt_text,
        "response_text": prompt.response_text,
        "status": prompt.status,
        "websocket": prompt.websocket,
        "attempt": prompt.attempt,
        "error": prompt.error,
        "history": prompt.history,
        "model": prompt.model,
        "usage": announcements.usage(prompt.prompt_tokens, prompt.completion_tokens),
        "cached_from": prompt.cached_from,
        "created_at": timestamps.rfc3339(prompt.created_at),
        "completed_at": timestamps.rfc3339_or_none(prompt.completed_at),
    }


def similar_prompt(prompt: PromptRow, username: str, distance: float) -> dict[str, Any]:
    """The prompt as a SimilarPrompt."""
    return {
        "id": prompt.id,
        "user": username,
        "prompt_text": prompt.prompt_text,
        "response_text": prompt.response_text,
        "similarity_score": distance,
        "created_at": timestamps.rfc3339(prompt.created_at),
    }
