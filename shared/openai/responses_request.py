"""The body of `POST /v1/responses`, and the prompt that it asks for.

Each parameter of OpenAI's API is a field here. Those that are not served have only the values that ask for nothing, so
that any other value is refused with the parameter's name.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field, Tag, ValidationInfo, field_validator

from shared.db.models import FrontApi
from shared.errors import InvalidFieldsError
from shared.openai import chat_messages
from shared.openai.chat_messages import AS_GIVEN, Conversation
from shared.openai.fields import (
    Count,
    FunctionName,
    JsonObjectFormat,
    JsonSchema,
    Metadata,
    PlainText,
    Text,
    TextFormat,
    by_key,
    check_choice,
    text_or,
)
from shared.openai.parsed import ParsedRequest
from shared.openai.response_items import Item, ItemReference, to_messages
from shared.providers.model_request import ModelRequest
from shared.request_body import MAX_TOOLS, Body, whole


class FunctionTool(Body):
    """A function that the model may call. `parameters` is a JSON Schema."""

    type: Literal["function"]
    name: FunctionName
    description: Text | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class NamedFunctionTool(Body):
    """A function, by name."""

    type: Literal["function"]
    name: FunctionName


class AllowedTools(Body):
    """The functions of `tools` that the model may call this time."""

    type: Literal["allowed_tools"]
    tools: list[NamedFunctionTool] = Field(min_length=1, max_length=MAX_TOOLS)
    mode: Literal["none", "auto", "required"] = "auto"


class SchemaFormat(Body):
    """JSON that is valid against a schema."""

    type: Literal["json_schema"]
    name: FunctionName
    description: Text | None = None
    schema_: Annotated[JsonSchema, Field(alias="schema")]
    strict: bool | None = None


class TextOptions(Body):
    """What the text of the answer is like."""

    format: (
        Annotated[
            Annotated[TextFormat, Tag("~text")]
            | Annotated[JsonObjectFormat, Tag("~json_object")]
            | Annotated[SchemaFormat, Tag("~json_schema")],
            by_key("type", "text", "json_object", "json_schema"),
        ]
        | None
    ) = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(Body):
    """How the model reasons. No summary of it is served."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: None = None
    generate_summary: None = None


class ResponseStreamOptions(Body):
    """Options of a stream."""

    include_obfuscation: Literal[False] | None = None


_ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("~text")]
    | Annotated[
        Annotated[NamedFunctionTool, Tag("~function")] | Annotated[AllowedTools, Tag("~allowed_tools")],
        by_key("type", "function", "allowed_tools"),
        Tag("~tool"),
    ],
    text_or("~tool"),
]


def read_input(given: str | list[Item]) -> Conversation:
    """The conversation that an input has. Raises ValueError if it has no prompt."""
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else to_messages(given)
    return Conversation(given, chat_messages.split(messages))


#: The field's value is a `Conversation`.
_Input = Annotated[
    PlainText | Annotated[list[Item], Field(min_length=1), Tag("~items")],
    text_or("~items"),
    AfterValidator(read_input),
    AS_GIVEN,
]
_Key = Annotated[Text, Field(max_length=64)]
#: The parameters that the model gets as they are, by the names that `ModelRequest` has for them too.
_SAME = ("instructions", "temperature", "top_p", "max_output_tokens", "presence_penalty", "frequency_penalty")
#: The parameters that only the resource repeats.
_REPEATED = ("previous_response_id", "user", "safety_identifier", "prompt_cache_key", "max_tool_calls")


class ResponseRequest(Body):
    """A response."""

    model: Text | None = Field(None, description="A model route: one of `GET /v1/models`.")
    input: _Input
    instructions: Text | None = None
    previous_response_id: Text | None = Field(None, description="The response that this one continues.")
    background: bool | None = Field(None, description="Whether to answer at once with the queued response.")
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: bool | None = Field(None, description="If `false`, the response is deleted some minutes after its end.")
    metadata: Metadata | None = None
    text: TextOptions | None = None
    tools: list[FunctionTool] | None = Field(None, max_length=MAX_TOOLS)
    tool_choice: _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, ge=0, le=1, allow_inf_nan=False)
    presence_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(None, ge=-2, le=2, allow_inf_nan=False)
    max_output_tokens: Annotated[int, Field(ge=16, lt=2**31), BeforeValidator(whole)] | None = None
    reasoning: ReasoningOptions | None = None
    # These ask for nothing of the answer.
    user: Text | None = None
    safety_identifier: _Key | None = None
    prompt_cache_key: _Key | None = None
    service_tier: Literal["auto", "default"] | None = None
    max_tool_calls: Count | None = Field(None, description="Limits built-in tools, of which there are none.")
    # These are not served: only what asks for nothing is accepted.
    truncation: Literal["disabled"] | None = None
    top_logprobs: Literal[0] | None = None
    include: Annotated[list[Text], Field(max_length=0)] | None = None
    conversation: None = None
    prompt: None = None
    context_management: None = None
    prompt_cache_retention: None = None
    prompt_cache_options: None = None
    moderation: None = None

    @field_validator("tool_choice")
    @classmethod
    def _is_among_tools(cls, choice: Any, info: ValidationInfo) -> Any:
        if "tools" not in info.data:  # they are not valid
            return choice
        chosen = [choice] if isinstance(choice, NamedFunctionTool) else getattr(choice, "tools", [])
        check_choice(choice, [each.name for each in chosen], [tool.name for tool in info.data["tools"] or ()])
        return choice

    @field_validator("store")
    @classmethod
    def _is_kept_in_background(cls, store: bool | None, info: ValidationInfo) -> bool | None:
        if store is False and info.data.get("background"):
            raise ValueError("must not be false: background needs a response that is stored")
        return store

    @field_validator("stream_options")
    @classmethod
    def _is_of_a_stream(cls, options: Any, info: ValidationInfo) -> Any:
        if options is not None and not info.data.get("stream"):
            raise ValueError("needs stream")
        return options


def parse(body: Mapping[str, Any]) -> ParsedRequest:
    """The prompt that a body asks for. Raises pydantic's ValidationError if it is not valid.

    What came before `previous_response_id` is not in it (see `stored_responses.continue_from`).
    """
    return to_prompt(ResponseRequest.model_validate(body))


def to_prompt(request: ResponseRequest) -> ParsedRequest:
    """The prompt that a valid request asks for.

    Raises:
        InvalidFieldsError: it has references to items (see `stored_responses.resolve`).
    """
    conversation = cast(Conversation, request.input)
    if references(request):
        raise InvalidFieldsError("An item_reference is not served here.", ["input"])
    prompt_text, before, own = conversation.prompt
    tools, tool_choice = _tools(request)
    asked = ModelRequest(
        messages=before,
        input=own,
        response_format=_response_format(request.text),
        tools=tools,
        tool_choice=tool_choice if tools else None,
        parallel_tool_calls=request.parallel_tool_calls if tools else None,
        reasoning_effort=None if request.reasoning is None else request.reasoning.effort,
        **{name: getattr(request, name) for name in _SAME},
    )
    return ParsedRequest(
        prompt_text=prompt_text,
        model=request.model,
        asked=asked,
        metadata=request.metadata,
        api=FrontApi.RESPONSES,
        api_request=_repeated(request, conversation.given),
    )


def references(request: ResponseRequest) -> list[ItemReference]:
    """The references to items of earlier responses in a request's input."""
    given = cast(Conversation, request.input).given
    return [] if isinstance(given, str) else [item for item in given if isinstance(item, ItemReference)]


def _repeated(request: ResponseRequest, given: str | list[Item]) -> dict[str, Any]:
    """What the resource and its input items repeat, and the model does not get."""
    kept: dict[str, Any] = {name: getattr(request, name) for name in _REPEATED}
    kept["background"] = request.background or None
    kept["is_unstored"] = True if request.store is False else None
    if not isinstance(given, str):
        kept["items"] = [_json(item) for item in given]
    if isinstance(request.tool_choice, AllowedTools):
        kept |= {"tool_choice": _json(request.tool_choice), "tools": [_json(tool) for tool in request.tools or ()]}
    return {name: value for name, value in kept.items() if value is not None}


def _tools(request: ResponseRequest) -> tuple[list[dict[str, Any]], str | dict[str, Any] | None]:
    """The functions that the model may call, and its choice, as chat completions have them."""
    tools, choice = request.tools or [], request.tool_choice
    if isinstance(choice, AllowedTools):
        allowed = {each.name for each in choice.tools}
        return [_chat_tool(tool) for tool in tools if tool.name in allowed], choice.mode
    chosen = (
        {"type": "function", "function": {"name": choice.name}} if isinstance(choice, NamedFunctionTool) else choice
    )
    return [_chat_tool(tool) for tool in tools], chosen


def _chat_tool(tool: FunctionTool) -> dict[str, Any]:
    fields = _json(tool)
    return {"type": fields.pop("type"), "function": fields}


def _response_format(text: TextOptions | None) -> dict[str, Any] | None:
    wanted = None if text is None else text.format
    if wanted is None or isinstance(wanted, TextFormat):
        return None
    fields = _json(wanted)
    kind = fields.pop("type")
    return {"type": kind, kind: fields} if fields else {"type": kind}


def _json(model: Body) -> dict[str, Any]:
    """The JSON of a part of the request, without what it leaves open."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
