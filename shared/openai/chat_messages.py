"""The messages of a chat completion, and which part of them is the prompt."""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, PlainSerializer, Tag

from shared.openai.fields import FunctionName, ParsedBySdk, PlainText, Text, by_key, text_or
from shared.providers import message_texts
from shared.providers.model_request import Message
from shared.request_body import MAX_PROMPT_LENGTH, Body

#: The text of a prompt that has none: what is searched and shown.
IMAGE, TOOL_RESULT = "[image]", "[tool result]"


class TextPart(Body):
    """A text."""

    type: Literal["text"]
    text: Text


class ImageUrl(Body):
    """An image: its URL, or its data as a `data:` URL."""

    url: Text
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Body):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


Texts = Annotated[PlainText | Annotated[list[TextPart], Field(min_length=1), Tag("~parts")], text_or("~parts")]
_Part = Annotated[
    Annotated[TextPart, Tag("~text")] | Annotated[ImagePart, Tag("~image_url")], by_key("type", "text", "image_url")
]
_Content = Annotated[PlainText | Annotated[list[_Part], Field(min_length=1), Tag("~parts")], text_or("~parts")]


class SystemMessage(Body):
    """Instructions."""

    role: Literal["system", "developer"]
    content: Texts
    name: Text | None = None


class UserMessage(Body):
    """What the user says."""

    role: Literal["user"]
    content: _Content
    name: Text | None = None


class CalledFunction(Body):
    """A function, and its arguments as JSON in a string."""

    name: FunctionName
    arguments: Text
    parsed_arguments: ParsedBySdk = None


class ToolCall(Body):
    """A call that the model asked for."""

    id: Text
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Body):
    """An earlier answer. It may be a `message` of a chat completion as it is."""

    role: Literal["assistant"]
    content: Texts | None = None
    name: Text | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any] | None, Field(max_length=0, exclude=True)] = None
    parsed: ParsedBySdk = None


class ToolMessage(Body):
    """The result of a call."""

    role: Literal["tool"]
    content: Texts
    tool_call_id: Text
    name: Text | None = None


ChatMessage = Annotated[
    Annotated[SystemMessage, Tag("~system")]
    | Annotated[SystemMessage, Tag("~developer")]
    | Annotated[UserMessage, Tag("~user")]
    | Annotated[AssistantMessage, Tag("~assistant")]
    | Annotated[ToolMessage, Tag("~tool")],
    by_key("role", "system", "developer", "user", "assistant", "tool"),
]


class Split(NamedTuple):
    """A conversation as a prompt: its text, the turns before it, and what replaces the text for the model."""

    prompt_text: str
    before: list[Message]
    input: list[Message]  #: empty if the text is all


class Conversation(NamedTuple):
    """What a request has as its messages or its input, read once, when it is validated."""

    given: Any
    prompt: Split


#: Writes a request with a `Conversation` as it was given.
AS_GIVEN = PlainSerializer(lambda conversation: conversation.given)


def split(messages: list[Message]) -> Split:
    """Find the prompt: the last message of a user, or the last results of tools, whose text is only a summary.

    Raises:
        ValueError: there is none, or it is blank or too long.
    """
    last = max((i for i, each in enumerate(messages) if each["role"] in ("user", "tool")), default=None)
    if last is None:
        raise ValueError("must have a message of a user, or the result of a tool")
    first = last
    while messages[last]["role"] == "tool" and first > 0 and messages[first - 1]["role"] == "tool":
        first -= 1
    prompt = messages[first:]
    text = "\n".join(part for each in messages[first : last + 1] for part in message_texts(each))
    if not text.strip():
        text = _placeholder(messages[last])
    if len(text) > MAX_PROMPT_LENGTH:
        if prompt[0]["role"] != "tool":
            raise ValueError(f"must have {MAX_PROMPT_LENGTH} characters or fewer in the last message of the user")
        text = text[:MAX_PROMPT_LENGTH]
    is_plain = len(prompt) == 1 and prompt[0].keys() == {"role", "content"} and _is_text(prompt[0])
    return Split(text, messages[:first], [] if is_plain else prompt)


def _is_text(message: Message) -> bool:
    content = message["content"]
    return isinstance(content, str) or all(part["type"] == "text" for part in content)


def _placeholder(message: Message) -> str:
    if message["role"] == "tool":
        return TOOL_RESULT
    if _is_text(message):
        raise ValueError("must not be blank in the last message of the user")
    return IMAGE
