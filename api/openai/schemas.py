"""Responses of OpenAI's API: chat completions, models, embeddings."""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from api.http.filter_schemas import MetadataQuery
from api.http.openapi.models import Answer, Body, Parameters, Query, example
from api.http.prompt_schemas import TokenUsage, ToolCall
from shared.openai.fields import Metadata
from shared.prompts.answer import FinishReason


class ChatAnswer(Answer):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None = Field(description="The answer; null if there are only calls of tools.")
    refusal: None
    annotations: list[Any]
    tool_calls: list[ToolCall] | None = Field(None, description="The functions that the model wants to be called.")


class Choice(Answer):
    """The answer: there is always one."""

    index: int
    message: ChatAnswer
    logprobs: None
    finish_reason: FinishReason


class ChatCompletion(Answer):
    """A chat completion."""

    id: str = Field(description="`chatcmpl-` and the prompt's id.")
    object: Literal["chat.completion"]
    created: int = Field(description="When the prompt was submitted, in seconds since 1970.")
    model: str = Field(description="The model route.")
    choices: list[Choice]
    usage: TokenUsage | None = Field(description="The tokens, if known.")
    metadata: dict[str, str]
    service_tier: Literal["default"]
    system_fingerprint: None


class ChatCompletionPath(Parameters):
    completion_id: str = Field(description="The chat completion's `id`.", json_schema_extra=example("chatcmpl-1"))


class ChatCompletionChanges(Body):
    """What to change of a chat completion."""

    metadata: Metadata | None = Field(description="Replaces all of its metadata.")


class ChatCompletionsQuery(MetadataQuery):
    """Which chat completions to list."""

    after: str | None = Field(
        None,
        description="The id of the last chat completion of the page before.",
        json_schema_extra={"pattern": "^chatcmpl-[1-9][0-9]{0,17}$"},
    )
    limit: int = Field(20, ge=1, le=100, description="The most chat completions of a page.")
    order: Literal["asc", "desc"] = Field("asc", description="`asc`: oldest first.")


class ChatCompletionList(Answer):
    """A page of chat completions."""

    object: Literal["list"]
    data: list[ChatCompletion]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ChatMessagesQuery(Query):
    """Which messages to list."""

    after: str | None = Field(None, description="The id of the last message of the page before.")
    limit: int = Field(20, ge=1, le=100, description="The most messages of a page.")
    order: Literal["asc", "desc"] = Field("asc", description="`asc`: the first message of the request first.")


class StoredChatMessage(Answer):
    """A message of a request: what `POST /v1/chat/completions` was sent, and an id."""

    model_config = ConfigDict(extra="allow")

    id: str
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = Field(description="The text; null if it had parts.")
    content_parts: list[dict[str, Any]] | None = Field(description="The parts; null if it was a text.")
    name: str | None


class ChatMessageList(Answer):
    """A page of messages."""

    object: Literal["list"]
    data: list[StoredChatMessage]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedChatCompletion(Answer):
    """A chat completion that is deleted."""

    id: str
    object: Literal["chat.completion.deleted"]
    deleted: Literal[True]


class Model(Answer):
    """A model route, or the embedder."""

    id: str
    object: Literal["model"]
    created: int = Field(description="Always 0: not known.")
    owned_by: str


class ModelList(Answer):
    """All models."""

    object: Literal["list"]
    data: list[Model]


class Embedding(Answer):
    """The vector of an input, of unit length."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers, or little-endian 32-bit floats in base64.")


class EmbeddingUsage(Answer):
    """An estimate of the inputs' tokens."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(Answer):
    """The vectors of all inputs, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
