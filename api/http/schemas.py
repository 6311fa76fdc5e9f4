"""Request and response bodies and parameters: pydantic models that validate requests and describe the API."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from api.http.openapi.models import Answer, Body, Parameters, Query, example
from shared import timestamps
from shared.accounts.users import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, USERNAME_PATTERN, check_username
from shared.db.models import Priority, Status
from shared.prompts.provider_pause import ProviderPause
from shared.prompts.queries import PromptRow

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
        description="`low` prompts stand behind all others, but get at least a tenth of the work. Null: `default`.",
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


Id = Annotated[int, Field(json_schema_extra={"format": "int64"})]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]


class NewUser(Answer):
    """A registered user."""

    id: Id
    username: str
    created_at: Moment


class TokenPair(Answer):
    """The tokens of a login."""

    access: str = Field(description="For calls, as `Authorization: Bearer <access>`; valid for 15 minutes by default.")
    refresh: str = Field(description="For the next pair; single-use.")


class TokenUsage(Answer):
    """The tokens that an answer used; none if it came from an earlier prompt."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Waiting(Answer):
    """Why a queued prompt waits, although it may be its turn."""

    reason: Literal["provider"]
    detail: str = Field(description="The provider's latest error.")
    next_attempt_at: Moment = Field(description="When the provider is tried again.")


class PromptResource(Answer):
    """A prompt and its answer."""

    id: Id
    user: str = Field(description="The username.")
    prompt_text: str
    response_text: str | None = Field(description="The answer; null unless `completed`.")
    status: Status = Field(description="`queued` → `processing` → `completed`, `failed` or `cancelled`.")
    websocket: bool = Field(description="Whether its events are sent to the user's sockets.")
    attempt: int = Field(description="How many times a worker has started to answer it.")
    error: str | None = Field(description="Why it `failed`, or why the previous attempt did.")
    history: int = Field(description="How many earlier exchanges the model gets as context.")
    priority: Priority = Field(description="`low` prompts stand behind all others, but get a tenth of the work.")
    position: int | None = Field(
        description="The place in line of a `queued` prompt; 1 is next. It may rise when users submit who have nothing "
        "queued. Null after a worker has taken the prompt, during the pause after a failed attempt, beyond the first "
        "10,000, and in the response to a submission if more than 100 are ahead."
    )
    waiting_for: Waiting | None = Field(description="What a `queued` prompt waits for, other than its turn.")
    model: str | None = Field(description="The model that answered, if known.")
    usage: TokenUsage | None = Field(description="The tokens that the answer used, if known.")
    cached_from: Id | None = Field(description="The `id` of the prompt whose answer was used.")
    created_at: Moment
    completed_at: Moment | None = Field(description="When it ended, with any status.")


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


class Health(Answer):
    """The state of a process."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str = Field(description="The version of Promptwire.")
    checks: dict[str, str] = Field(description="By dependency: `ok`, or what is wrong.")


def prompt_resource(prompt: PromptRow, username: str) -> dict[str, Any]:
    """Render a prompt as a PromptResource."""
    return {
        "id": prompt.id,
        "user": username,
        "prompt_text": prompt.prompt_text,
        "response_text": prompt.answer.response_text,
        "status": prompt.status,
        "websocket": prompt.websocket,
        "attempt": prompt.attempt,
        "error": prompt.error,
        "history": prompt.history,
        "priority": prompt.priority,
        "position": prompt.position,
        "waiting_for": prompt.waiting_for and _waiting(prompt.waiting_for),
        **prompt.answer.details(),
        "created_at": timestamps.rfc3339(prompt.created_at),
        "completed_at": timestamps.rfc3339_or_none(prompt.completed_at),
    }


def _waiting(pause: ProviderPause) -> dict[str, Any]:
    next_attempt_at = timestamps.rfc3339(pause.next_attempt_at)
    return {"reason": "provider", "detail": pause.detail, "next_attempt_at": next_attempt_at}


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
