"""The simulated answers to prompts that ask for more than an answer to their text: by rules, without a model."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from shared.errors import ProviderError
from shared.prompts.answer import FinishReason
from shared.providers import GenerationRequest, message_texts
from shared.providers.model_request import Message, ModelRequest
from shared.providers.schema_instances import instance
from shared.providers.tokens import BYTES_PER_TOKEN, estimate_tokens

QUOTE_LENGTH = 200
#: How many tools one answer calls at most.
_MAX_CALLS = 8
_MIN_WORD_LENGTH = 4
#: Words that say nothing about what a tool is for.
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "about call create current data does fetch find from function give given have into list look make name please"
        " return returns tell that this tool update value what when which with your",
    )
)


class SimulatedAnswer(NamedTuple):
    """An answer, before it is cut into chunks."""

    text: str
    finish_reason: str = FinishReason.STOP
    tool_calls: Sequence[dict[str, Any]] = ()

    @property
    def tokens(self) -> int:
        """Its text, and the names and arguments of its tool calls."""
        called = [text for call in self.tool_calls for text in call["function"].values()]
        return sum(map(estimate_tokens, filter(None, (self.text, *called))))


def quote(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= QUOTE_LENGTH else line[: QUOTE_LENGTH - 1].rstrip() + "…"


def answer(request: GenerationRequest, plain: str) -> SimulatedAnswer:
    """Answer a request that asks for something.

    Args:
        plain: The answer to the prompt's text alone.

    Raises:
        ProviderError: that is impossible: no value satisfies a schema.
    """
    asked = request.asked
    if tools := _called_tools(request):
        return SimulatedAnswer("", FinishReason.TOOL_CALLS, [_call(request, *each) for each in enumerate(tools)])
    return _cut(_text(request, plain), asked)


def _text(request: GenerationRequest, plain: str) -> str:
    """The whole text, as JSON if the request wants that."""
    wanted = request.asked.response_format or {"type": "text"}
    if wanted["type"] == "json_schema":
        return json.dumps(instance(wanted["json_schema"].get("schema", True)), ensure_ascii=False)
    sentences = " ".join(_sentences(request, plain))
    return json.dumps({"answer": sentences}, ensure_ascii=False) if wanted["type"] == "json_object" else sentences


def _sentences(request: GenerationRequest, plain: str) -> Iterator[str]:
    """Yield what the answer says: what tools returned, else the plain answer; then what else it has read."""
    asked, own = request.asked, request.asked.conversation(request.prompt_text)
    results = _latest_results(own)
    names = {call["id"]: call["function"]["name"] for message in own for call in message.get("tool_calls") or ()}
    for result in results:
        name = names.get(result.get("tool_call_id"), "tool")
        yield f"The tool {name} returned “{quote(' '.join(message_texts(result)))}”."
    yield "This answer is simulated." if results else plain
    if images := sum(_count_images(message) for message in (*asked.messages, *asked.input)):
        yield f"I was sent {images} image{'s' * (images > 1)}."
    said = [message for message in asked.messages if message["role"] == "user"]
    if said:
        earlier = quote(" ".join(message_texts(said[-1])))
        yield f"Before that I read {len(asked.messages)} earlier messages; you last said “{earlier}”."
    if asked.instructions:
        yield f"My instructions are “{quote(asked.instructions)}”."


def _cut(text: str, asked: ModelRequest) -> SimulatedAnswer:
    """End the text before the first stop sequence in it, or at its limit of tokens."""
    found = [place for stop in asked.stop if stop and (place := text.find(stop)) >= 0]
    text = text[: min(found, default=len(text))]
    limit = asked.max_output_tokens
    if limit is None or estimate_tokens(text) <= limit:
        return SimulatedAnswer(text)
    kept = text.encode()[: limit * BYTES_PER_TOKEN].decode(errors="ignore")
    return SimulatedAnswer(kept, FinishReason.LENGTH)


# Tools


def _called_tools(request: GenerationRequest) -> list[dict[str, Any]]:
    """The tools to call: the one that must be, or those that the prompt asks for by name or description."""
    asked = request.asked
    choice, tools = asked.tool_choice or "auto", list(asked.tools)
    if isinstance(choice, Mapping):
        return [_named(choice, tools)]
    own = asked.conversation(request.prompt_text)
    if choice == "none" or (choice == "auto" and _latest_results(own)):
        return []
    users = [message for message in own if message["role"] == "user"]
    words = _words(" ".join(message_texts(users[-1]))) if users else frozenset()
    called = [tool for tool in tools if _is_asked_for(tool["function"], words)]
    if choice == "required" and not called:
        return tools[:1]
    return called[: 1 if asked.parallel_tool_calls is False else _MAX_CALLS]


def _named(choice: Mapping[str, Any], tools: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The tool that `tool_choice` names."""
    name = choice.get("function", {}).get("name")
    for tool in tools:
        if tool["function"]["name"] == name:
            return tool
    raise ProviderError("The simulated model has no tool that tool_choice names.", retryable=False)


def _is_asked_for(function: Mapping[str, Any], words: frozenset[str]) -> bool:
    """Whether a text has the name of a function, a word of it, or two words of its description."""
    name = function["name"]
    of_name = _telling(_words(re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]", " ", name)))
    of_description = _telling(_words(function.get("description") or ""))
    return name.lower() in words or bool(of_name & words) or len(of_description & words) >= 2


def _call(request: GenerationRequest, number: int, tool: Mapping[str, Any]) -> dict[str, Any]:
    """A call with valid arguments. Its id is the same for each attempt, and differs from those of other prompts."""
    function = tool["function"]
    arguments = instance({**(function.get("parameters") or {}), "type": "object"})
    unique = f"{request.idempotency_key} {request.prompt_text} {number} {len(request.asked.messages)}"
    return {
        "id": f"call_{hashlib.sha256(unique.encode()).hexdigest()[:24]}",
        "type": "function",
        "function": {"name": function["name"], "arguments": json.dumps(arguments, ensure_ascii=False)},
    }


def _latest_results(messages: Sequence[Message]) -> list[Message]:
    """The results of tools at the end of a conversation."""
    results: list[Message] = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        results.insert(0, message)
    return results


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.lower()))


def _telling(words: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in words - _COMMON if len(word) >= _MIN_WORD_LENGTH)


def _count_images(message: Message) -> int:
    content = message.get("content")
    return sum(part.get("type") == "image_url" for part in content) if isinstance(content, list) else 0
