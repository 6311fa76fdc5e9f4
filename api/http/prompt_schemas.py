"""Prompts and searches in requests and responses: pydantic models, and functions that render what the database has."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from api.http.fields import MAX_ID, STORABLE_NOT_BLANK, Cursor, Id, IdempotencyKey, Moment, NotBlank, PageSize
from api.http.filter_schemas import FilterQuery
from api.http.openapi.models import Answer, Parameters, example
from api.http.request_schemas import RequestFields
from shared import timestamps
from shared.accounts.export import ExportedPrompt
from shared.db.models import Priority, Status
from shared.prompts.answer import FinishReason
from shared.prompts.queries import PromptRow
from shared.prompts.resource import prompt_resource
from shared.request_body import MAX_PROMPT_LENGTH, whole

#: The text is part of a URL, and gunicorn accepts 8 KiB.
MAX_SEARCH_LENGTH = 8_000
MAX_WAIT_SECONDS = 60
MAX_HISTORY = 20

_PREFER = "`wait=N`: wait up to N ≤ 60 seconds for the answer. Anything else is ignored."


class Submission(RequestFields):
    """A new prompt."""

    prompt_text: NotBlank = Field(max_length=MAX_PROMPT_LENGTH, description="The prompt; not blank.")
    websocket: bool = Field(False, description="Whether its events are sent to the user's sockets.")
    cache: bool | None = Field(
        None,
        description="Whether the answer of a nearly identical earlier prompt may be used; null means the "
        "service's default (`SEMANTIC_CACHE`).",
    )
    history: Annotated[int, Field(ge=0, le=MAX_HISTORY), BeforeValidator(whole)] | None = Field(
        None, description="How many of the user's earlier exchanges, the most similar ones, the model gets as context."
    )
    priority: Annotated[Priority, Field(strict=False)] | None = Field(
        None,
        description="`low` prompts come after all others, but get at least a tenth of the work. Null: `default`.",
    )


class SubmissionHeaders(Parameters):
    idempotency_key: IdempotencyKey = Field(
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


class PageQuery(FilterQuery):
    limit: PageSize = 20
    cursor: Cursor = None


class SimilarQuery(FilterQuery):
    prompt: NotBlank = Field(
        max_length=MAX_SEARCH_LENGTH,
        description="The text to compare with; not blank.",
        json_schema_extra=example("tides of the ocean") | {"pattern": STORABLE_NOT_BLANK},
    )
    mode: Literal["vector", "text", "hybrid"] = Field(
        "vector",
        description="`vector` compares meanings. `text` finds prompts that have some of the words, in the prompt or in "
        "the answer, the rarest words first. `hybrid` does both, and fuses them by reciprocal rank.",
    )
    limit: int = Field(5, ge=1, le=50, description="How many to return at most.")
    max_score: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="The largest `similarity_score` to return; only with `mode=vector`.",
        json_schema_extra=example(1.2),
    )
    cursor: str | None = Field(
        None,
        max_length=64,
        description="The start of the page, as it is in the `Link` to the rest of the results.",
        json_schema_extra=example("cmFuazoz"),
    )


class TokenUsage(Answer):
    """The tokens that an answer used; none if it came from an earlier prompt."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Waiting(Answer):
    """Why a queued prompt cannot be claimed, whatever its position."""

    reason: Literal["provider", "paused"] = Field(
        description="`provider`: its provider is unavailable. `paused`: an operator has paused its model."
    )
    detail: str = Field(description="The provider's latest error, or what the operator says.")
    next_attempt_at: Moment | None = Field(description="When the provider is tried again. Null for `paused`.")


class CalledFunction(Answer):
    """The name of a function, and its arguments as JSON."""

    name: str
    arguments: str


class ToolCall(Answer):
    """A function that the model wants to be called."""

    id: str
    type: Literal["function"]
    function: CalledFunction


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
    metadata: dict[str, str] = Field(description="Pairs of strings by which it can be found again.")
    position: int | None = Field(
        description="The position of a `queued` prompt in the queue; 1 is next. It may rise when users submit who have "
        "nothing queued. Null once a worker has claimed the prompt, during the backoff after a failed attempt, over "
        "`USER_RUNNING_LIMIT`, beyond the first 10,000, and in the response to a submission with more than 100 ahead."
    )
    waiting_for: Waiting | None = Field(description="Why a `queued` prompt waits, if not only for its turn.")
    model: str = Field(description="The model route that answers it.")
    provider_model: str | None = Field(description="The model that answered, as its provider reports it.")
    usage: TokenUsage | None = Field(description="The tokens that the answer used, if known.")
    finish_reason: FinishReason | None = Field(
        description="Why the model stopped: `stop`, the answer is complete; `length`, it is cut off at the limit of "
        "tokens; `content_filter`, the provider's filter withheld the rest; `tool_calls`, the model wants to call "
        "tools. Null if not known."
    )
    tool_calls: list[ToolCall] | None = Field(description="The functions that the model wants to be called.")
    cached_from: Id | None = Field(description="The `id` of the prompt whose answer was used.")
    created_at: Moment
    completed_at: Moment | None = Field(description="When it ended, with any status.")
    emptied_at: Moment | None = Field(
        description="When its texts were removed, because it was older than `RETENTION_DAYS`. Then `prompt_text` is "
        "empty, and `response_text` and `error` are null."
    )


class ShownPrompt(PromptResource):
    """A prompt, its answer, and what it asked for."""

    request: dict[str, Any] | None = Field(
        None,
        description="What was submitted besides the text: `instructions`, `messages`, `temperature`, … Missing if "
        "nothing was, and once it is emptied; and in lists.",
    )


class SimilarPrompt(Answer):
    """A completed prompt that is similar to the query."""

    id: Id
    user: str
    prompt_text: str
    response_text: str
    similarity_score: Annotated[float, Field(ge=0)] | None = Field(
        description="The squared L2 distance of the vectors: 0 identical, 2 unrelated, 4 opposite. Null if the prompt "
        "was found by its words alone, with `mode=text` or `hybrid`."
    )
    created_at: Moment


def shown_prompt(prompt: PromptRow, username: str) -> dict[str, Any]:
    """Render a prompt as a ShownPrompt."""
    resource = prompt_resource(prompt, username)
    return resource if prompt.request is None else resource | {"request": prompt.request}


def exported_prompt(exported: ExportedPrompt, username: str) -> dict[str, Any]:
    """Render a prompt as a line of an export: a ShownPrompt, and everything else that is known of it."""
    prompt = exported.prompt
    return prompt_resource(prompt, username) | {
        "request": exported.request,
        "api": prompt.api,
        "api_request": exported.api_request,
        "batch_id": exported.batch_id,
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


def similar_prompt(prompt: PromptRow, username: str, distance: float | None) -> dict[str, Any]:
    """Render a prompt as a SimilarPrompt."""
    return {
        "id": prompt.id,
        "user": username,
        "prompt_text": prompt.prompt_text,
        "response_text": prompt.answer.response_text,
        "similarity_score": distance,
        "created_at": timestamps.rfc3339(prompt.created_at),
    }
