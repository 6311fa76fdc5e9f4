"""What clients send and get, as pydantic models: they validate requests and describe the API."""

import re
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, RootModel, StringConstraints

from shared import timestamps
from shared.library import PromptRow
from shared.models import Status
from shared.users import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, USERNAME_PATTERN

MAX_PROMPT_LENGTH = 100_000
MAX_WAIT_SECONDS = 60
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


Text = Annotated[
    str,
    Field(min_length=1, max_length=MAX_PROMPT_LENGTH, json_schema_extra={"pattern": _STORABLE_NOT_BLANK}),
    AfterValidator(_not_blank),
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


class Body(BaseModel):
    """A request body: an object with exactly these fields, in their JSON types."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Parameters(BaseModel):
    """Headers, or what is in a path."""

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Made once where nothing else is asked for, because flask-openapi3 looks at it in each request."""
        return super().model_json_schema(*args, **kwargs) if args or kwargs else _json_schema(cls)


@cache
def _json_schema(model: type[Parameters]) -> dict[str, Any]:
    return super(Parameters, model).model_json_schema()


class Query(Parameters):
    """Query parameters; unknown ones are refused, because they are most often misspelt ones."""

    model_config = ConfigDict(extra="forbid")


class Registration(Body):
    username: Username
    password: Password


class Credentials(Body):
    username: Annotated[
        str,
        Field(min_length=1, max_length=150, json_schema_extra={"pattern": _STORABLE}),
        AfterValidator(_storable),
    ]
    password: Annotated[str, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH)]


class RefreshToken(Body):
    refresh: Annotated[str, Field(min_length=1, max_length=4096)]


class Submission(Body):
    prompt_text: Text
    websocket: bool = Field(False, description="Whether its events are sent to the user's sockets.")


class SubmissionHeaders(Parameters):
    idempotency_key: Annotated[str, StringConstraints(pattern=r"^[!-~]{1,255}$")] | None = Field(
        None, alias="Idempotency-Key", description="The same key and body within 24 hours make one prompt."
    )
    prefer: str | None = Field(None, alias="Prefer", description="`wait=N`: up to N ≤ 60 seconds for the answer.")


class WaitHeaders(Parameters):
    prefer: str | None = Field(None, alias="Prefer", description="`wait=N`: up to N ≤ 60 seconds for the answer.")


class PromptPath(Parameters):
    prompt_id: int = Field(ge=1, le=MAX_ID)


class PageQuery(Query):
    limit: int = Field(20, ge=1, le=100)
    status: Status | None = None
    cursor: str | None = Field(None, max_length=64, description="From the `next` link of the page before.")


class SimilarQuery(Query):
    prompt: Text
    limit: int = Field(5, ge=1, le=50)
    max_score: float | None = Field(None, ge=0, allow_inf_nan=False, description="The largest distance to return.")


class NewUser(BaseModel):
    id: int
    username: str
    created_at: str


class TokenPair(BaseModel):
    access: str
    refresh: str


class PromptResource(BaseModel):
    """A prompt as its user sees it."""

    id: int
    user: str
    prompt_text: str
    response_text: str | None
    status: Status
    websocket: bool
    attempt: int
    error: str | None
    created_at: str
    completed_at: str | None


class PromptPage(RootModel[list[PromptResource]]):
    """Prompts, newest first."""


class SimilarPrompt(BaseModel):
    """A completed prompt, and the squared L2 distance of its vector to the query's: 0 the same, 4 opposite."""

    id: int
    user: str
    prompt_text: str
    response_text: str
    similarity_score: float
    created_at: str


class SimilarPrompts(RootModel[list[SimilarPrompt]]):
    """Prompts, nearest first."""


class FieldError(BaseModel):
    field: str
    message: str


class Problem(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


def problems(*statuses: int) -> dict[int | str, Any]:
    """What the API's description says of these error statuses."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


class Health(BaseModel):
    status: Literal["ok", "degraded", "unavailable"]
    checks: dict[str, str]


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
