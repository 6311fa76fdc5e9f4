# ruff: noqa: E501 - a case is a line
"""How servers that imitate OpenAI's API send tool calls, byte by byte: the table that the generator must understand."""

import json
from dataclasses import dataclass
from typing import Any

from tests.support.dialects import DONE, JSON, STOP, USAGE, Failure, choice, chunk, event

#: What most cases call: `get_weather(city="Zürich")`.
ARGUMENTS = '{"city": "Zürich"}'
WEATHER = ("get_weather", ARGUMENTS)
TIME = ("get_time", "{}")


@dataclass(frozen=True)
class Called:
    """An answer with these calls, each a name and arguments, and its text."""

    calls: tuple[tuple[str, str], ...]
    text: str = ""
    finish_reason: str | None = "tool_calls"
    ids: tuple[str, ...] | None = None  #: None if the server sends none


@dataclass(frozen=True)
class ToolCase:
    name: str
    body: bytes
    expected: Called | Failure
    content_type: str = "text/event-stream"


def call(arguments: Any = None, name: Any = None, **more: Any) -> dict[str, Any]:
    """A call, or a piece of one, with the index 0 unless another is given."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    given = {"index": 0, "function": function, **more}
    return {key: value for key, value in given.items() if value is not None}


def delta(*calls: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    return choice(index=0, delta={"tool_calls": list(calls), **more}, finish_reason=finish)


def completion(finish: str | None = "tool_calls", **message: Any) -> bytes:
    """A completion that is not streamed."""
    return json.dumps(
        {
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": USAGE,
        }
    ).encode()


def _pieces(text: str, length: int = 3) -> list[str]:
    return [text[i : i + length] for i in range(0, len(text), length)]


def _function(finish: str | None = None, **function: Any) -> bytes:
    return choice(index=0, delta={"function_call": function}, finish_reason=finish)


FIRST = delta(call("", "get_weather", id="call_1", type="function"), role="assistant", content=None)
REST = b"".join(delta(call(piece)) for piece in _pieces(ARGUMENTS))
END = choice(index=0, delta={}, finish_reason="tool_calls") + DONE
WHOLE_CALL = call(ARGUMENTS, "get_weather", index=None, id="call_1", type="function")
ONE = Called((WEATHER,), ids=("call_1",))
ANONYMOUS = Called((WEATHER,))
BOTH = Called((WEATHER, TIME), ids=("a", "b"))
NOT_JSON = Failure("arguments that are not a JSON object")

# fmt: off

TOOL_CALLS = (
    ToolCase("as OpenAI does", FIRST + REST + END, ONE),
    ToolCase("in one chunk", delta(call(ARGUMENTS, "get_weather", id="call_1", type="function")) + END, ONE),
    ToolCase("with the finish_reason in the same chunk", delta(call(ARGUMENTS, "get_weather", id="call_1"), finish="tool_calls") + DONE, ONE),
    ToolCase("two calls", delta(call("", "get_weather", id="a")) + REST + delta(call("{}", "get_time", id="b", index=1)) + END, BOTH),
    ToolCase("two calls, their pieces mixed", delta(call('{"city":', "get_weather", id="a"), call("{", "get_time", id="b", index=1)) + delta(call("}", index=1), call(' "Zürich"}')) + END, BOTH),
    ToolCase("two calls with one index", delta(call(ARGUMENTS, "get_weather", id="a"), call("{}", "get_time", id="b")) + END, BOTH),
    ToolCase("two calls without index", delta(call(ARGUMENTS, "get_weather", id="a", index=None)) + delta(call("{}", "get_time", id="b", index=None)) + END, BOTH),
    ToolCase("two calls without index and id", delta(call(ARGUMENTS, "get_weather", index=None)) + delta(call("{}", "get_time", index=None)) + END, Called((WEATHER, TIME))),
    ToolCase("the same call twice", delta(call(ARGUMENTS, "get_weather", index=None)) + delta(call(ARGUMENTS, "get_weather", index=None)) + END, Called((WEATHER, WEATHER))),
    ToolCase("one id for two calls", delta(call(ARGUMENTS, "get_weather", id="x"), call("{}", "get_time", id="x", index=1)) + END, Called((WEATHER, TIME))),
    ToolCase("pieces without index", delta(call("", "get_weather", id="call_1", index=None)) + REST.replace(b'"index": 0, "function"', b'"function"') + END, ONE),
    ToolCase("a new id with each piece", FIRST + b"".join(delta(call(piece, id=f"other_{i}")) for i, piece in enumerate(_pieces(ARGUMENTS))) + END, ONE),
    ToolCase("the id and the name with each piece", b"".join(delta(call(piece, "get_weather", id="call_1")) for piece in _pieces(ARGUMENTS)) + END, ONE),
    ToolCase("the name with each piece, and an empty end", b"".join(delta(call(piece, "get_weather")) for piece in [*_pieces(ARGUMENTS), ""]) + END, ANONYMOUS),
    ToolCase("the name in pieces", delta(call("", "get_", id="call_1")) + delta(call("", "weather")) + REST + END, ONE),
    ToolCase("the name so far each time", delta(call("", "get_", id="call_1")) + delta(call("", "get_weather")) + REST + END, ONE),
    ToolCase("no id", delta(call("", "get_weather")) + REST + END, ANONYMOUS),
    ToolCase("an empty id", delta(call(ARGUMENTS, "get_weather", id="")) + END, ANONYMOUS),
    ToolCase("null fields", choice(index=0, delta={"tool_calls": [{"index": 0, "id": "call_1", "type": None, "function": {"name": "get_weather", "arguments": None}}]}) + REST + END, ONE),
    ToolCase("arguments that are an object", delta(call({"city": "Zürich"}, "get_weather", id="call_1")) + END, ONE),
    ToolCase("no arguments", delta(call(None, "get_time")) + END, Called((TIME,))),
    ToolCase("empty arguments", delta(call("", "get_time")) + END, Called((TIME,))),
    ToolCase("spaces around the arguments", delta(call(f" {ARGUMENTS}\n", "get_weather")) + END, ANONYMOUS),
    ToolCase("all arguments once more at the end", FIRST + REST + delta(call(ARGUMENTS)) + END, ONE),
    ToolCase("the whole message once more", FIRST + REST + choice(index=0, message={"content": None, "tool_calls": [WHOLE_CALL]}, finish_reason="tool_calls") + DONE, ONE),
    ToolCase("a message instead of deltas", choice(index=0, message={"tool_calls": [WHOLE_CALL]}, finish_reason="tool_calls") + DONE, ONE),
    ToolCase("text before the calls", chunk("Let me see.") + FIRST + REST + END, Called((WEATHER,), "Let me see.", ids=("call_1",))),
    ToolCase("text beside the calls", delta(call(ARGUMENTS, "get_weather", id="call_1"), content="Let me see.") + END, Called((WEATHER,), "Let me see.", ids=("call_1",))),
    ToolCase("reasoning before the calls", choice(index=0, delta={"reasoning_content": "Hm"}) + FIRST + REST + END, ONE),
    ToolCase("finish_reason stop", FIRST + REST + STOP + DONE, Called((WEATHER,), finish_reason="stop", ids=("call_1",))),
    ToolCase("finish_reason tool_use", FIRST + REST + choice(index=0, delta={}, finish_reason="tool_use"), ONE),
    ToolCase("[DONE] without finish_reason", FIRST + REST + DONE, Called((WEATHER,), finish_reason=None, ids=("call_1",))),
    ToolCase("usage in a chunk of its own", FIRST + REST + choice(index=0, delta={}, finish_reason="tool_calls") + event({"choices": [], "usage": USAGE}) + DONE, ONE),
    ToolCase("function_call in pieces", _function(name="get_weather", arguments="") + b"".join(_function(arguments=piece) for piece in _pieces(ARGUMENTS)) + choice(index=0, delta={}, finish_reason="function_call") + DONE, ANONYMOUS),
    ToolCase("plain JSON", completion(content=None, tool_calls=[WHOLE_CALL]), ONE, JSON),
    ToolCase("plain JSON without finish_reason", completion(None, content=None, tool_calls=[WHOLE_CALL]), Called((WEATHER,), finish_reason=None, ids=("call_1",)), JSON),
    ToolCase("plain JSON with function_call", completion("function_call", content=None, function_call={"name": "get_weather", "arguments": ARGUMENTS}), ANONYMOUS, JSON),
    ToolCase("Ollama's lines", json.dumps({"message": {"content": "", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Zürich"}}}]}, "done": False}).encode() + b"\n" + json.dumps({"message": {"content": "", "tool_calls": [{"function": {"name": "get_time", "arguments": {}}}]}, "done": False}).encode() + b'\n{"message": {"content": ""}, "done": true, "done_reason": "stop"}\n', Called((WEATHER, TIME), finish_reason="stop"), "application/x-ndjson"),
    ToolCase("cut by the limit after text", chunk("Let me see.") + FIRST + delta(call('{"ci')) + chunk("", "length") + DONE, Called((), "Let me see.", "length")),
    ToolCase("cut by the limit after a whole call", delta(call(ARGUMENTS, "get_weather", id="a")) + delta(call('{"ci', "get_time", id="b", index=1)) + chunk("", "length") + DONE, Called((WEATHER,), finish_reason="length", ids=("a",))),
    ToolCase("cut by the limit", FIRST + delta(call('{"ci')) + chunk("", "length") + DONE, Failure("limit of tokens before its tool call was complete")),
    ToolCase("arguments that are not JSON", FIRST + delta(call("{city}")) + END, NOT_JSON),
    ToolCase("arguments that are a list", FIRST + delta(call("[1]")) + END, NOT_JSON),
    ToolCase("arguments twice, and differently", FIRST + REST + delta(call('{"city": "Bern"}')) + END, NOT_JSON),
    ToolCase("no name", delta(call("{}", id="call_1")) + END, Failure("called a tool without its name")),
    ToolCase("another kind of tool", delta({"index": 0, "type": "custom", "custom": {"name": "x"}}) + END, Failure("a tool that is not a function")),
    ToolCase("calls that are a text", choice(index=0, delta={"tool_calls": "get_weather"}) + END, Failure("tool calls are not a list")),
    ToolCase("a call that is a text", choice(index=0, delta={"tool_calls": ["get_weather"]}) + END, Failure("a tool call is not an object")),
    ToolCase("a name that is a number", delta(call("{}", 5)) + END, Failure("a tool call does not consist of texts")),
    ToolCase("tool_calls without calls", choice(index=0, delta={}, finish_reason="tool_calls") + DONE, Failure("answer was empty")),
    ToolCase("an end without finish_reason", FIRST + REST, Failure("answer was incomplete")),
    ToolCase("blocked", FIRST + REST + choice(index=0, delta={}, finish_reason="content_filter"), Failure("content filter", retryable=False)),
    ToolCase("too many calls", delta(*(call("{}", f"f{i}", id=f"{i}", index=i) for i in range(129))) + END, Failure("more than 128 tools")),
    ToolCase("too long arguments", FIRST + delta(call("x" * 700_000)) * 2 + END, Failure("more than 1048576 bytes", retryable=False)),
)
