"""The input items of a response, and the messages of a chat completion that say the same."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from shared.openai.fields import FunctionName, ParsedBySdk, PlainText, Text, by_key, text_or
from shared.providers.model_request import Message
from shared.request_body import Body

_Status = Literal["in_progress", "completed", "incomplete"] | None
CallId = Annotated[Text, Field(min_length=1, max_length=64)]


class InputText(Body):
    """A text."""

    type: Literal["input_text"]
    text: Text


class InputImage(Body):
    """An image: its URL, or its data as a `data:` URL."""

    type: Literal["input_image"]
    image_url: Annotated[Text, Field(min_length=1)]
    detail: Literal["auto", "low", "high"] | None = None
    file_id: None = None


class OutputText(Body):
    """A text of an earlier answer. Its annotations are not passed on."""

    type: Literal["output_text"]
    text: Text
    annotations: list[dict[str, Any]] | None = None
    logprobs: list[dict[str, Any]] | None = None
    parsed: ParsedBySdk = None


class Refusal(Body):
    """What the model said instead of an answer."""

    type: Literal["refusal"]
    refusal: Text


_InputTexts = Annotated[PlainText | Annotated[list[InputText], Field(min_length=1), Tag("~parts")], text_or("~parts")]
_InputPart = Annotated[
    Annotated[InputText, Tag("~input_text")] | Annotated[InputImage, Tag("~input_image")],
    by_key("type", "input_text", "input_image"),
]
_Input = Annotated[PlainText | Annotated[list[_InputPart], Field(min_length=1), Tag("~parts")], text_or("~parts")]
_OutputPart = Annotated[
    Annotated[OutputText, Tag("~output_text")] | Annotated[Refusal, Tag("~refusal")],
    by_key("type", "output_text", "refusal"),
]
_Output = Annotated[PlainText | Annotated[list[_OutputPart], Tag("~parts")], text_or("~parts")]


class InputItem(Body):
    """An item of the input. Its `id` and `status` say nothing to the model."""

    id: Text | None = None
    status: _Status = None

    def add_to(self, messages: list[Message]) -> None:
        """Add to the messages of a chat completion what this item says."""
        raise NotImplementedError


class UserItem(InputItem):
    """What the user says."""

    type: Literal["message"] | None = None
    role: Literal["user"]
    content: _Input

    def add_to(self, messages: list[Message]) -> None:
        messages.append({"role": self.role, "content": _content(self.content)})


class SystemItem(InputItem):
    """Instructions."""

    type: Literal["message"] | None = None
    role: Literal["system", "developer"]
    content: _InputTexts

    def add_to(self, messages: list[Message]) -> None:
        messages.append({"role": self.role, "content": _content(self.content)})


class AssistantItem(InputItem):
    """An earlier answer. Its `phase` is kept with the response, but chat completions cannot tell the model of it."""

    type: Literal["message"] | None = None
    role: Literal["assistant"]
    content: _Output
    phase: Literal["commentary", "final_answer"] | None = None

    def add_to(self, messages: list[Message]) -> None:
        parts = [self.content] if isinstance(self.content, str) else map(_output_text, self.content)
        messages.append({"role": self.role, "content": "".join(parts)})


class FunctionCallItem(InputItem):
    """A call that the model asked for."""

    type: Literal["function_call"]
    call_id: CallId
    name: FunctionName
    arguments: Text
    parsed_arguments: ParsedBySdk = None

    def add_to(self, messages: list[Message]) -> None:
        """Calls are a part of the assistant's message before them."""
        if not messages or messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": None})
        function = {"name": self.name, "arguments": self.arguments}
        messages[-1].setdefault("tool_calls", []).append({"id": self.call_id, "type": "function", "function": function})


class FunctionCallOutputItem(InputItem):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: CallId
    output: _InputTexts

    def add_to(self, messages: list[Message]) -> None:
        messages.append({"role": "tool", "tool_call_id": self.call_id, "content": _content(self.output)})


class ItemReference(Body):
    """An item of an earlier response's output, by its id. `stored_responses.resolve` puts the item in its place."""

    type: Literal["item_reference"] | None = None
    id: Annotated[Text, Field(min_length=1)]

    def add_to(self, messages: list[Message]) -> None:
        """Add nothing: an earlier answer is never the prompt, so a request can be validated without it."""


_KINDS = ("message", "function_call", "function_call_output", "item_reference")
_ROLES = ("user", "system", "developer", "assistant")
_UNKNOWN = f"must be an item whose type is one of: {', '.join(_KINDS)}; a message's role one of: {', '.join(_ROLES)}"


def _kind(value: Any) -> str | None:
    """The tag of an item. The type of a message may be left out."""
    if not isinstance(value, Mapping):
        return None
    kind = value.get("type") or ("message" if "role" in value or "id" not in value else "item_reference")
    found = value.get("role") if kind == "message" else kind
    return f"~{found}" if isinstance(found, str) and found in (*_ROLES, *_KINDS[1:]) else None


Item = Annotated[
    Annotated[UserItem, Tag("~user")]
    | Annotated[SystemItem, Tag("~system")]
    | Annotated[SystemItem, Tag("~developer")]
    | Annotated[AssistantItem, Tag("~assistant")]
    | Annotated[FunctionCallItem, Tag("~function_call")]
    | Annotated[FunctionCallOutputItem, Tag("~function_call_output")]
    | Annotated[ItemReference, Tag("~item_reference")],
    Discriminator(_kind, custom_error_type="unknown_item", custom_error_message=_UNKNOWN),
]


def to_messages(items: Iterable[InputItem | ItemReference]) -> list[Message]:
    """The messages of a chat completion that say what these items say."""
    messages: list[Message] = []
    for item in items:
        item.add_to(messages)
    return messages


def render(item: Mapping[str, Any], item_id: str) -> dict[str, Any]:
    """An input item as the API shows it, with every field that the published schema requires.

    Args:
        item: As the request had it.
    """
    shown = {"type": "message", **item, "id": item_id, "status": item.get("status") or "completed"}
    if isinstance(shown.get("content"), str):
        kind = "output_text" if shown["role"] == "assistant" else "input_text"
        shown["content"] = [{"type": kind, "text": shown["content"]}]
    if "content" in shown:
        shown["content"] = [_render_part(part) for part in shown["content"]]
    return shown


def _render_part(part: Mapping[str, Any]) -> dict[str, Any]:
    defaults: dict[str, dict[str, Any]] = {
        "output_text": {"annotations": [], "logprobs": []},
        "input_image": {"detail": "auto"},
    }
    return {**defaults.get(part["type"], {}), **part}


def _output_text(part: OutputText | Refusal) -> str:
    return part.text if isinstance(part, OutputText) else part.refusal


def _content(content: str | list[Any]) -> str | list[dict[str, Any]]:
    return content if isinstance(content, str) else [_chat_part(part) for part in content]


def _chat_part(part: InputText | InputImage) -> dict[str, Any]:
    if isinstance(part, InputText):
        return {"type": "text", "text": part.text}
    detail = {} if part.detail is None else {"detail": part.detail}
    return {"type": "image_url", "image_url": {"url": part.image_url, **detail}}
