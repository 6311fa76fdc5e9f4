"""What a prompt may ask for besides its text: fields of `POST /prompts/` that become a `ModelRequest`."""

from functools import partial
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from api.http.fields import MAX_MODEL_LENGTH, Metadata, Storable
from api.http.openapi.models import Body
from shared.openai.fields import FunctionName
from shared.providers.model_request import TEXT_ONLY, ModelRequest
from shared.request_body import MAX_STOPS, MAX_TOOLS, ValidSchema, whole

MAX_TEXT_LENGTH = 100_000  #: of instructions, and of each message
MAX_MESSAGES = 500
_INT32, _INT64 = 2**31, 2**63


def _stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Stop = Annotated[Storable, Field(min_length=1, max_length=100)]
Stops = Annotated[
    list[Stop], Field(max_length=MAX_STOPS), BeforeValidator(_stops, json_schema_input_type=Stop | list[Stop])
]


class Turn(Body):
    """A message of an earlier turn."""

    role: Literal["user", "assistant", "system"]
    content: Storable = Field(max_length=MAX_TEXT_LENGTH)


class AnswerSchema(Body):
    """The JSON Schema that an answer must satisfy."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: FunctionName
    description: Annotated[Storable, Field(max_length=1024)] | None = None
    schema_: ValidSchema = Field(
        alias="schema", description="Draft 2020-12, unless `$schema` names another one; without remote references."
    )
    strict: bool | None = Field(None, description="Whether the provider must keep to the schema while it generates.")


class ResponseFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: AnswerSchema | None = Field(None, description="For the type `json_schema`.")

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError('needs `json_schema` if, and only if, the type is "json_schema"')
        return self


class ToolFunction(Body):
    name: FunctionName
    description: Annotated[Storable, Field(max_length=10_000)] | None = None
    parameters: ValidSchema | None = Field(None, description="The JSON Schema of its arguments.")
    strict: bool | None = Field(None, description="Whether its arguments must satisfy the schema.")


class Tool(Body):
    """A function that the model may want to be called."""

    type: Literal["function"]
    function: ToolFunction


class ChosenFunction(Body):
    name: FunctionName


class ChosenTool(Body):
    """The tool that the model must call."""

    type: Literal["function"]
    function: ChosenFunction


_MODES = ("none", "auto", "required")


def _tool_choice(value: Any) -> Any:
    if isinstance(value, str) and value in _MODES:
        return value
    try:
        return ChosenTool.model_validate(value).model_dump()
    except ValidationError:
        raise ValueError(
            'must be "none", "auto", "required" or {"type": "function", "function": {"name": …}}'
        ) from None


ToolChoice = Annotated[
    str | dict[str, Any],
    BeforeValidator(_tool_choice, json_schema_input_type=Literal["none", "auto", "required"] | ChosenTool),
]


class RequestFields(Body):
    """The fields of a new prompt, besides its text, that say which model answers, and how."""

    model: str | None = Field(
        None, max_length=MAX_MODEL_LENGTH, description="The model route. Null: the first one of the service."
    )
    instructions: Annotated[Storable, Field(max_length=MAX_TEXT_LENGTH)] | None = Field(
        None, description="What the model is told before the conversation: its role, tone, rules."
    )
    messages: Annotated[list[Turn], Field(max_length=MAX_MESSAGES)] | None = Field(
        None, description="The turns before this prompt, oldest first."
    )
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(
        None, description="How random the answer is. Null: the service's or the provider's default."
    )
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Which part of the probability mass is considered (nucleus sampling)."
    )
    max_output_tokens: Annotated[int, Field(ge=1, lt=_INT32), BeforeValidator(whole)] | None = Field(
        None, description="The longest answer. One that is cut off has the `finish_reason` `length`."
    )
    stop: Stops | None = Field(None, description="Up to four texts; the answer ends before the first of them.")
    seed: Annotated[int, Field(ge=-_INT64, lt=_INT64), BeforeValidator(whole)] | None = Field(
        None, description="With the same seed, a provider tries to give the same answer."
    )
    response_format: ResponseFormat | None = Field(
        None,
        description="`json_schema`: the answer is JSON that satisfies the schema, and one that does not is a failed "
        "attempt. `json_object`: the answer is a JSON object. `text` is the same as null.",
    )
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = Field(
        None, description="Functions that the model may want to be called."
    )
    tool_choice: ToolChoice | None = Field(None, description="Whether it must call one, or which one.")
    metadata: Metadata | None = Field(
        None, description="Pairs of strings by which the prompt can be found again: at most 16."
    )

    @field_validator("tool_choice")
    @classmethod
    def _is_among_tools(cls, choice: Any, info: ValidationInfo) -> Any:
        """Refuse a choice that no tool fits."""
        names = [tool.function.name for tool in info.data.get("tools") or ()]
        if isinstance(choice, dict) and choice["function"]["name"] not in names:
            raise ValueError("names a function that is not in tools")
        if choice == "required" and not names:
            raise ValueError("requires a tool, but there are none")
        return choice

    def asked(self) -> ModelRequest:
        """What the prompt asks of the model besides its text."""
        if self.model_fields_set.isdisjoint(_ASKED):  # almost all prompts
            return TEXT_ONLY
        given = {name: _plain(getattr(self, name)) for name in _ASKED & self.model_fields_set}
        if given.get("response_format") == {"type": "text"}:
            del given["response_format"]
        asked = ModelRequest(**{name: value for name, value in given.items() if value is not None})
        return TEXT_ONLY if asked == TEXT_ONLY else asked


_ASKED = frozenset(RequestFields.model_fields).intersection(ModelRequest.__dataclass_fields__)
_dump = partial(BaseModel.model_dump, exclude_none=True, by_alias=True)


def _plain(value: Any) -> Any:
    """The value in the types of JSON."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return _dump(value) if isinstance(value, BaseModel) else value
