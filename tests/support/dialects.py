# ruff: noqa: E501 - a case is a line
"""What servers that imitate OpenAI's API are seen to send, byte by byte: the table that the generator must understand.

Each line is a case: its name, the bytes of the body, and what must come of it.
"""

import gzip
import json
import zlib
from dataclasses import dataclass
from typing import Any

import brotli

from shared.errors import ProviderError, ProviderOverloadedError, ProviderUnavailableError
from shared.providers import Usage


@dataclass(frozen=True)
class Answer:
    """An answer: its text, and its usage."""

    text: str
    finish_reason: str | None = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str = "m"

    @property
    def usage(self) -> Usage:
        return Usage(self.model, self.prompt_tokens, self.completion_tokens, self.finish_reason)


@dataclass(frozen=True)
class Failure:
    """A failed attempt: words of its message, its exact class, and whether another attempt may help."""

    words: str
    kind: type[ProviderError] = ProviderError
    retryable: bool = True


@dataclass(frozen=True)
class Case:
    name: str
    body: bytes
    expected: Answer | Failure
    content_type: str = "text/event-stream"
    headers: str = ""


def event(data: Any) -> bytes:
    """Return an event with this JSON."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def chunk(text: Any = None, finish: Any = None, **more: Any) -> bytes:
    """Return a chunk with this content and finish_reason, and other keys beside the choices."""
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}], **more})


def choice(**keys: Any) -> bytes:
    """Return a chunk with one choice that has exactly these keys."""
    return event({"choices": [keys]})


def completion(message: Any = "Hello", finish: Any = "stop", **more: Any) -> bytes:
    """Return a completion that is not streamed."""
    made = {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": message}}], **more}
    made["choices"][0]["finish_reason"] = finish
    return json.dumps(made).encode()


HEL, LO, STOP, DONE = chunk("Hel"), chunk("lo"), chunk("", "stop"), b"data: [DONE]\n\n"
HELLO = HEL + LO
WHOLE = HELLO + STOP + DONE
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
OK = Answer("Hello")
JSON = "application/json"
INCOMPLETE = Failure("answer was incomplete")
STRANGE = Failure("does not follow OpenAI's API")


def _error(status: int | None = None, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": "It broke", **({"code": status} if status else {}), **fields}}


_ENDS = {
    "stop": ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "STOP", "done", "complete", "eosFound"),
    "length": ("length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens", "maxPredictedTokensReached"),
    "content_filter": ("content_filter", "SAFETY", "sensitive", "RECITATION"),
    "tool_calls": ("tool_calls", "tool_use", "function_call"),
}

# fmt: off

#: Server-sent events, as the HTML standard and as servers write them.
EVENTS = (
    Case("as OpenAI does", WHOLE, OK),
    Case("CR LF", WHOLE.replace(b"\n", b"\r\n"), OK),
    Case("lone CR", WHOLE.replace(b"\n", b"\r"), OK),
    Case("mixed line ends", HEL.replace(b"\n", b"\r\n") + LO.replace(b"\n", b"\r") + STOP + DONE, OK),
    Case("BOM", b"\xef\xbb\xbf" + WHOLE, OK),
    Case("no space after the colon", WHOLE.replace(b"data: ", b"data:"), OK),
    Case("two spaces after the colon", WHOLE.replace(b"data: ", b"data:  "), OK),
    Case("comments", b": OPENROUTER PROCESSING\n\n" + HEL + b":\n: ping - 2026\n\n" + LO + STOP + DONE, OK),
    Case("control fields", b"retry: 3000\n\nid: 7\nevent: message\n" + HEL + b"id\nretry: x\n" + LO + STOP + DONE, OK),
    Case("unknown fields", b"foo: bar\nfoo\n" + WHOLE, OK),
    Case("pings", b'event: ping\ndata: {"type": "ping"}\n\n' + HEL + b"data: \n\ndata\n\n" + LO + STOP + DONE, OK),
    Case("pings with text", b"event: ping\ndata: 12:00 UTC\n\nevent: heartbeat\ndata: 5\n\n" + WHOLE, OK),
    Case("JSON in two data lines", WHOLE.replace(b'"choices": [', b'"choices":\ndata: ['), OK),
    Case("JSON in two data lines, CR LF", WHOLE.replace(b'"choices": [', b'"choices":\ndata: [').replace(b"\n", b"\r\n"), OK),
    Case("no blank lines", WHOLE.replace(b"\n\n", b"\n"), OK),
    Case("many blank lines", b"\n\n\n" + WHOLE.replace(b"\n\n", b"\n\n\n\n"), OK),
    Case("no blank line at the end", WHOLE.removesuffix(b"\n\n"), OK),
    Case("no line end after the last chunk", HELLO + STOP.removesuffix(b"\n\n"), OK),
    Case("data: twice", WHOLE.replace(b"data: ", b"data: data: "), OK),
    Case("NUL after the JSON", WHOLE.replace(b"}\n\n", b"}\0\n\n"), OK),
    Case("lines of JSON without data:", WHOLE.replace(b"data: ", b"").replace(b"\n\n", b"\n"), OK),
    Case("a raw tab in a text", HEL + chunk("l\to").replace(b"\\t", b"\t") + STOP + DONE, Answer("Hell\to")),
    Case("line separators in a text", chunk("a\u2028b\u0085c\x0bd") + STOP + DONE, Answer("a\u2028b\u0085c\x0bd")),
    Case("text after [DONE]", WHOLE + HELLO, OK),
    Case("[DONE] twice", WHOLE + DONE, OK),
    Case("quoted [DONE]", HELLO + b'data: "[DONE]"\n\n', Answer("Hello", None)),
    Case("not UTF-8", chunk("caf#").replace(b"#", b"\xe9") + STOP + DONE, Answer("caf\ufffd")),
    Case("gzip", gzip.compress(WHOLE), OK, headers="Content-Encoding: gzip\r\n"),
    Case("brotli", brotli.compress(WHOLE), OK, headers="Content-Encoding: br\r\n"),
    Case("said to be compressed", WHOLE, Failure("cannot be decompressed"), headers="Content-Encoding: gzip\r\n"),
    Case("deflate", zlib.compress(WHOLE), OK, headers="Content-Encoding: deflate\r\n"),
    Case("called JSON", WHOLE, OK, JSON),
    Case("called text", WHOLE, OK, "text/plain; charset=latin-1"),
    Case("broken JSON", HEL + b'data: {"choices": [{"del\n\n', STRANGE),
    Case("a number", HEL + b"data: 5\n\n", STRANGE),
    Case("too long a line", b"data: " + b"x" * (9 * 1024 * 1024), Failure("event of more than 8,388,608 bytes")),
)

#: Characters that are cut in two.
CHARACTERS = (
    Case("a surrogate pair", chunk("#").replace(b"#", b"\\ud83d\\ude00") + STOP, Answer("😀")),
    Case("a cut pair", (chunk("a#") + chunk("#b")).replace(b"a#", b"a\\ud83d").replace(b"#b", b"\\ude00b") + STOP, Answer("a😀b")),
    Case("cut UTF-8", chunk("#").replace(b"#", b"\xf0\x9f") + chunk("#").replace(b"#", b"\x98\x80") + STOP, Answer("😀")),
    Case("a lone half", (chunk("#x")).replace(b"#", b"\\ud83d") + STOP, Answer("\ufffdx")),
    Case("a half at the end", chunk("x#").replace(b"#", b"\\ud83d") + STOP, Answer("x\ufffd")),
    Case("U+FFFD itself", chunk("a\ufffdb") + STOP, Answer("a\ufffdb")),
    Case("emoji of four bytes", chunk("👩‍👩‍👧") + STOP, Answer("👩‍👩‍👧")),
)

#: Where the text stands.
SHAPES = (
    Case("role first", choice(index=0, delta={"role": "assistant"}) + WHOLE, OK),
    Case("null content", chunk(None) + WHOLE, OK),
    Case("null delta", choice(index=0, delta=None) + WHOLE, OK),
    Case("no index", choice(delta={"content": "Hello"}, finish_reason="stop"), OK),
    Case("typed parts", chunk([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}], "stop"), OK),
    Case("parts that are texts", chunk(["Hel", "lo"], "stop"), OK),
    Case("a part with a value", chunk([{"type": "text", "text": {"value": "Hello"}}], "stop"), OK),
    Case("message instead of delta", choice(message={"content": "Hel"}) + choice(message={"content": "lo"}) + DONE, Answer("Hello", None)),
    Case("text instead of delta", choice(text="Hel") + choice(text="lo", finish_reason="stop"), OK),
    Case("delta is a text", choice(delta="Hel") + choice(delta="lo", finish_reason="stop"), OK),
    Case("the whole message once more", HELLO + choice(message={"content": "Hello"}, finish_reason="stop"), OK),
    Case("the whole message, stripped", HEL + chunk("lo\n") + choice(message={"content": "Hello"}, finish_reason="stop"), Answer("Hello\n")),
    Case("the message so far beside each delta", choice(delta={"content": "Hel"}, message={"content": "Hel"}) + choice(delta={"content": "lo "}, message={"content": "Hello"}) + choice(delta={"content": ""}, message={"content": "Hello"}, finish_reason="stop"), Answer("Hello ")),
    Case("the whole text once more", HELLO + choice(delta={}, text="Hello", finish_reason="stop"), OK),
    Case("a message with more", HEL + choice(message={"content": "Hello"}, finish_reason="stop"), OK),
    Case("another message after deltas", HELLO + choice(message={"content": "Good day"}, finish_reason="stop"), Failure("sends its answer twice, and differently")),
    Case("the message so far each time", choice(message={"content": "Hel"}) + choice(message={"content": "Hello"}) + choice(message={"content": "Hello"}, finish_reason="stop"), OK),
    Case("messages that begin alike", choice(message={"content": "a"}) + choice(message={"content": "ah"}) + choice(message={"content": "so"}, finish_reason="stop"), Failure("repeats parts of its answer")),
    Case("equal messages", choice(message={"content": "ha"}) + choice(message={"content": "ha"}, finish_reason="stop"), Answer("haha")),
    Case("an index that is a text", choice(index="0", delta={"content": "Hello"}, finish_reason="stop"), OK),
    Case("an index that counts", choice(index=0, delta={"content": "Hel"}) + choice(index=1, delta={"content": "lo"}, finish_reason="stop") + DONE, INCOMPLETE),
    Case("an error without values", chunk("Hello", "stop", error={"code": None, "message": ""}), OK),
    Case("delta and empty message", choice(delta={"content": "Hello"}, message={"content": ""}, finish_reason="stop"), OK),
    Case("refusal", choice(delta={"content": None, "refusal": "Hello"}, finish_reason="stop"), OK),
    Case("several choices", event({"choices": [{"index": 1, "delta": {"content": "No"}, "finish_reason": "length"}, {"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}), OK),
    Case("a chunk of another choice", event({"choices": [{"index": 1, "delta": {"content": "No"}}]}) + WHOLE, OK),
    Case("Azure's first chunk", event({"choices": [], "prompt_filter_results": []}) + WHOLE, OK),
    Case("null choices", event({"choices": None}) + WHOLE, OK),
    Case("think blocks stay", chunk("<think>x</think>Hello", "stop"), Answer("<think>x</think>Hello")),
    Case("reasoning, then text", choice(index=0, delta={"reasoning_content": "Hm", "content": ""}) + WHOLE, OK),
    Case("Ollama's lines", b'{"model":"m","message":{"content":"Hel"},"done":false}\n{"model":"m","message":{"content":"lo"},"done":false}\n{"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":2}\n', Answer("Hello", "stop", 3, 2), "application/x-ndjson"),
    Case("Ollama's lines, cut", b'{"response":"Hel","done":false}\n{"response":"lo","done":false}\n', INCOMPLETE, "application/x-ndjson"),
    Case("lines of JSON, cut", HELLO.replace(b"data: ", b"").replace(b"\n\n", b"\n"), INCOMPLETE, "application/x-ndjson"),
    Case("lines of messages, cut", b'{"choices":[{"message":{"content":"Hel"}}]}\n{"choices":[{"message":{"content":"lo"}}]}\n', INCOMPLETE, JSON),
    Case("plain JSON", completion(usage=USAGE), Answer("Hello", "stop", 3, 2), JSON),
    Case("plain JSON called a stream", completion(), OK),
    Case("indented JSON", json.dumps(json.loads(completion()), indent=2).encode(), OK, JSON),
    Case("plain JSON without finish_reason", completion(finish=None), Answer("Hello", None), JSON),
    Case("plain JSON with parts", completion([{"type": "text", "text": "Hello"}]), OK, JSON),
    Case("plain JSON, cut", completion()[:-5], STRANGE, JSON),
    Case("content is a number", chunk(5, "stop"), STRANGE),
    Case("choices is a number", event({"choices": 5}), STRANGE),
)

#: How an answer ends.
ENDS = (
    *(Case(f"finish_reason {said}", HELLO + chunk("", said), Answer("Hello", meant)) for meant, all_said in _ENDS.items() for said in all_said),
    Case("finish_reason with the last text", HEL + chunk("lo", "stop"), OK),
    Case("finish_reason with each chunk", chunk("Hel", "stop") + chunk("lo", "stop"), OK),
    Case("finish_reason with each chunk, then an error", chunk("Hel", "stop") + chunk("lo", "stop") + event(_error()), Failure("It broke")),
    Case("text after the finish_reason", HEL + chunk("", "stop") + LO + DONE, OK),
    Case("empty finish_reasons", chunk("Hel", "") + chunk("lo", "null") + STOP, OK),
    Case("[DONE] without finish_reason", HELLO + DONE, Answer("Hello", None)),
    Case("no [DONE]", HELLO + STOP, OK),
    Case("neither", HELLO, INCOMPLETE),
    Case("an unknown finish_reason", HELLO + chunk("", "solar_flare") + DONE, Failure('finish_reason is "solar_flare"')),
    Case("finish_reason error", HELLO + chunk("", "error") + DONE, Failure('finish_reason is "error"')),
    Case("only comments", b": ping\n\n" * 3, Failure("answer was empty")),
    Case("nothing", b"", Failure("answer was empty")),
    Case("only [DONE]", DONE, Failure("answer was empty")),
    Case("no text", choice(index=0, delta={"role": "assistant"}, finish_reason="stop") + DONE, Failure("answer was empty")),
    Case("only reasoning", choice(index=0, delta={"reasoning_content": "Hm"}, finish_reason="stop"), Failure("reasoning but no answer")),
    Case("only reasoning, OpenRouter's", choice(index=0, delta={"reasoning": "Hm"}) + STOP + DONE, Failure("reasoning but no answer")),
    Case("only thinking parts", chunk([{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}], "stop"), Failure("reasoning but no answer")),
    Case("reasoning to the limit", choice(index=0, delta={"reasoning": "Hm"}, finish_reason="length"), Failure("limit of tokens while reasoning")),
    Case("only tool calls", choice(index=0, delta={"tool_calls": [{"index": 0}]}, finish_reason="tool_calls"), Failure("called a tool")),
    Case("blocked", choice(index=0, delta={}, finish_reason="content_filter"), Failure("content filter", retryable=False)),
    Case("usage in a chunk of its own", HELLO + STOP + event({"choices": [], "usage": USAGE}) + DONE, Answer("Hello", "stop", 3, 2)),
    Case("usage with the last text", HEL + chunk("lo", "stop", usage=USAGE), Answer("Hello", "stop", 3, 2)),
    Case("null usage", chunk("Hello", "stop", usage=None) + DONE, OK),
    Case("usage with each chunk", chunk("Hel", usage={"prompt_tokens": 3, "completion_tokens": 1}) + chunk("lo", "stop", usage=USAGE), Answer("Hello", "stop", 3, 2)),
    Case("usage without choices", HELLO + STOP + event({"usage": USAGE}), Answer("Hello", "stop", 3, 2)),
    Case("usage of Groq", HELLO + chunk("", "stop", x_groq={"usage": USAGE}), Answer("Hello", "stop", 3, 2)),
    Case("usage that is none", chunk("Hello", "stop", usage={"prompt_tokens": "3", "completion_tokens": -1}), OK),
    Case("the exact model", chunk("Hello", "stop", model="m-2026"), Answer("Hello", model="m-2026")),
    Case("garbage after the end", HELLO + STOP + b"data: {\n\n", OK),
    Case("an error after the end", HELLO + STOP + event(_error(500)), OK),
)

#: Failures under status 200.
FAILURES = (
    Case("JSON", json.dumps(_error()).encode(), Failure("The provider interrupted its answer: It broke."), JSON),
    Case("an event", event(_error()), Failure("It broke")),
    Case("after text", HELLO + event(_error()) + DONE, Failure("It broke")),
    Case("event: error", b'event: error\ndata: {"message": "It broke"}\n\n', Failure("It broke")),
    Case("event: error with text", b"event: error\ndata: It broke\n\n", Failure("It broke")),
    Case("error: as a field", b'error: {"code": 500, "message": "It broke"}\n\n', Failure("failed (500): It broke")),
    Case("JSON after events", HELLO + b'{"error": {"message": "It broke"}}', Failure("It broke")),
    Case("an error that is a text", event({"error": "It broke"}), Failure("It broke")),
    Case("an error in a choice", choice(index=0, delta={"content": ""}, error={"code": 502, "message": "It broke"}), Failure("(502): It broke", ProviderUnavailableError)),
    Case("FastAPI's detail", b'{"detail": "It broke"}', Failure("It broke"), JSON),
    Case("vLLM's object", b'{"object": "error", "message": "It broke", "code": 400}', Failure("refused the request (400): It broke", retryable=False)),
    Case("MiniMax's base_resp", event({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "It broke"}}), Failure("It broke")),
    Case("an HTML page", b"<!DOCTYPE html><html>It works!</html>", Failure("sent a web page"), "text/html"),
    Case("an HTML page called a stream", b"\n\n <html>\n<p>x</p></html>", Failure("sent a web page")),
    Case("plain text", b"Internal Server Error", Failure("does not follow OpenAI's API"), "text/plain"),
    Case("code 429", event(_error(429)), Failure("(429): It broke", ProviderOverloadedError)),
    Case("code '429'", event({"error": {"message": "It broke", "code": "429"}}), Failure("(429)", ProviderOverloadedError)),
    Case("code 503", event(_error(503)), Failure("(503)", ProviderOverloadedError)),
    Case("code 529", event(_error(529)), Failure("(529)", ProviderOverloadedError)),
    Case("code 502", event(_error(502)), Failure("(502)", ProviderUnavailableError)),
    Case("code 500", event(_error(500)), Failure("failed (500): It broke")),
    Case("code 401", event(_error(401)), Failure("check OPENAI_API_KEY", retryable=False)),
    Case("code 400", event(_error(400)), Failure("refused the request (400): It broke", retryable=False)),
    Case("code 429 outside", b'{"code": 429, "message": "It broke"}', Failure("(429): It broke", ProviderOverloadedError), JSON),
    Case("status 503 outside", event({"status": 503, "message": "It broke"}), Failure("(503)", ProviderOverloadedError)),
    Case("Google's", event({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "It broke"}}), Failure("(429)", ProviderOverloadedError)),
    Case("rate_limit_exceeded", event(_error(code="rate_limit_exceeded")), Failure("(429)", ProviderOverloadedError)),
    Case("rate_limit_error", event(_error(type="rate_limit_error")), Failure("(429)", ProviderOverloadedError)),
    Case("overloaded_error", event(_error(type="overloaded_error")), Failure("(529)", ProviderOverloadedError)),
    Case("insufficient_quota", event(_error(code="insufficient_quota", type="x")), Failure("quota is used up", ProviderUnavailableError)),
    Case("context_length_exceeded", event(_error(code="context_length_exceeded")), Failure("(400)", ProviderError, False)),
    Case("server_error", event(_error(type="server_error")), Failure("failed (500)")),
    Case("invalid_api_key", event(_error(code="invalid_api_key")), Failure("refused the key (401)", retryable=False)),
    Case("loading a model", event({"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}), Failure("is loading its model (503)", ProviderUnavailableError)),
)

# fmt: on

ALL = {"events": EVENTS, "characters": CHARACTERS, "shapes": SHAPES, "ends": ENDS, "failures": FAILURES}
