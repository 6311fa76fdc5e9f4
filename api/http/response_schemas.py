"""Response bodies: pydantic models that describe the API, and functions that render what the database has."""

from typing import Annotated, Any, Literal

from pydantic import Field

from api.http.openapi.models import Answer
from shared import timestamps
from shared.db.models import Priority, Status
from shared.prompts.answer import FinishReason
from shared.prompts.queries import PromptRow

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
    """Why a queued prompt cannot be claimed, whatever its position."""

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
