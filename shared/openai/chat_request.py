"""The body of `POST /v1/chat/completions`, and the prompt that it asks for.

Each parameter of OpenAI's API is a field here. Those that are not served have only the values that ask for nothing, so
that any other value is refused with the parameter's name.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field, Tag, ValidationInfo, field_validator

from shared.db.models import FrontApi
from shared.openai import chat_messages
from shared.openai.chat_messages import AS_GIVEN, ChatMessage, Conversation
from shared.openai.fields import (
    Count,
    FunctionName,
    JsonObjectFormat,
    JsonSchema,
    Metadata,
    PlainText,
    Seed,
    Text,
    TextFormat,
    by_key,
    check_choice,
    text_or,
)
from shared.openai.parsed import ParsedRequest
from shared.providers.model_request import ModelRequest
from shared.request_body import MAX_STOPS, MAX_TOOLS, Body


def _json(model: Body) -> dict[str, Any]:
    """The JSON of a part of the request, without what it leaves open."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _read(messages: list[ChatMessage]) -> Conversation:
    return Conversation(messages, chat_messages.split([_json(message) for message in messages]))


class Function(Body):
    """A function that the model may call. `parameters` is a JSON Schema."""

    name: FunctionName
    description: Text | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class Tool(Body):
    """A tool: always a function."""

    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    """The name of a function."""

    name: FunctionName


class NamedTool(Body):
    """The function that the model must call."""

    type: Literal["function"]
    function: NamedFunction


class NamedSchema(Body):
    """A JSON Schema for the answer."""

    name: FunctionName
    description: Text | None = None
    schema_: Annotated[JsonSchema, Field(alias="schema")]
    strict: bool | None = None


class JsonSchemaFormat(Body):
    """JSON that is valid against a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(Body):
    """Options of a stream."""

    include_usage: bool | None = Field(None, description="Whether one more chunk, before the end, has the usage.")
    include_obfuscation: Literal[False] | None = None


_ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("~text")] | Annotated[NamedTool, Tag("~tool")], text_or("~tool")
]
_ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("~text")]
    | Annotated[JsonObjectFormat, Tag("~json_object")]
    | Annotated[JsonSchemaFormat, Tag("~json_schema")],
    by_key("type", "text", "json_object", "json_schema"),
]
_Stop = Annotated[
    PlainText | Annotated[list[Text], Field(min_length=1, max_length=MAX_STOPS), Tag("~list")],
    text_or("~list"),
]
#: The field's value is a `Conversation`.
_Messages = Annotated[list[ChatMessage], Field(min_length=1), AfterValidator(_read), AS_GIVEN]
_Empty = Annotated[dict[str, Any], Field(max_length=0)]
#: The parameters that the model gets as they are, by the names that `ModelRequest` has for them too.
_SAME = (
    *("temperature", "top_p", "seed", "frequency_penalty", "presence_penalty", "reasoning_effort"),
    *("parallel_tool_calls",),
)


class ChatCompletionRequest(Body):
    """A chat completion."""

    model: Text = Field(description="A model route: one of `GET /v1/models`.")
    messages: _Messages
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = Field(None, description="The new name of `max_tokens`.")
    stop: _Stop | None = None
    seed: Seed | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    response_format: _ResponseFormat | None = None
    tools: list[Tool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    metadata: Metadata | None = None
    # These ask for nothing of the answer.
    user: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: bool | None = Field(
        None, description="false: the answer cannot be retrieved, and is deleted ten minutes after its end."
    )
    # These are not served: only what asks for nothing is accepted.
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: _Empty | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1)] | None = None
    verbosity: Literal["medium"] | None = None
    prompt_cache_retention: None = None
    prompt_cache_options: None = None
    audio: None = None
    prediction: None = None
    web_search_options: None = None
    moderation: None = None
    functions: None = None
    function_call: None = None

    @field_validator("tool_choice")
    @classmethod
    def _is_among_tools(cls, choice: Any, info: ValidationInfo) -> Any:
        if "tools" not in info.data:  # they are not valid
            return choice
        named = [choice.function.name] if isinstance(choice, NamedTool) else []
        check_choice(choice, named, [tool.function.name for tool in info.data["tools"] or ()])
        return choice

    @field_validator("max_completion_tokens")
    @classmethod
    def _is_the_same(cls, limit: int | None, info: ValidationInfo) -> int | None:
        if None is not info.data.get("max_tokens") != limit is not None:
            raise ValueError("is the new name of max_tokens: use one of them")
        return limit


def parse(body: Mapping[str, Any]) -> ParsedRequest:
    """The prompt that a body asks for. Raises pydantic's ValidationError if it is not valid."""
    return to_prompt(ChatCompletionRequest.model_validate(body))


def to_prompt(request: ChatCompletionRequest) -> ParsedRequest:
    """The prompt that a valid request asks for."""
    prompt_text, before, own = cast(Conversation, request.messages).prompt
    tools = [_json(tool) for tool in request.tools or ()]
    asked = ModelRequest(
        messages=before,
        input=own,
        max_output_tokens=request.max_completion_tokens or request.max_tokens,
        stop=[request.stop] if isinstance(request.stop, str) else request.stop or (),
        response_format=_response_format(request),
        tools=tools,
        tool_choice=_tool_choice(request) if tools else None,
        **{name: getattr(request, name) for name in _SAME if tools or name != "parallel_tool_calls"},
    )
    return ParsedRequest(
        prompt_text=prompt_text,
        model=request.model,
        asked=asked,
        metadata=request.metadata,
        api=FrontApi.CHAT_COMPLETIONS,
        api_request={"is_unstored": True} if request.store is False else None,
    )


def _response_format(request: ChatCompletionRequest) -> dict[str, Any] | None:
    wanted = request.response_format
    return None if wanted is None or isinstance(wanted, TextFormat) else _json(wanted)


def _tool_choice(request: ChatCompletionRequest) -> str | dict[str, Any] | None:
    choice = request.tool_choice
    return _json(choice) if isinstance(choice, NamedTool) else choice
