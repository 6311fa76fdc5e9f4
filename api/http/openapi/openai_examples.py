"""Examples of requests and responses of OpenAI's API. Tests validate them against the schemas."""

import json
from typing import Any

_WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Lisbon"}'},
}
_USAGE = {"prompt_tokens": 5, "completion_tokens": 12, "total_tokens": 17}
_ANSWER = "The moon pulls at the water of the oceans."
_HEAD = {"id": "chatcmpl-1", "created": 1795426200, "model": "default", "system_fingerprint": None}


def _completion(content: str | None, finish_reason: str, **message: Any) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content, "refusal": None, "annotations": [], **message},
        "logprobs": None,
        "finish_reason": finish_reason,
    }
    shown = {"choices": [choice], "usage": _USAGE, "metadata": {}, "service_tier": "default"}
    return {**_HEAD, "object": "chat.completion", **shown}


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return f"data: {json.dumps({**_HEAD, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"


CHAT_STREAM = (
    _chunk({"role": "assistant", "content": "", "refusal": None})
    + _chunk({"content": _ANSWER})
    + _chunk({}, "stop")
    + "data: [DONE]\n\n"
)

BODIES: dict[str, dict[str, Any]] = {
    "ChatCompletionRequest": {
        "A question": {
            "model": "default",
            "messages": [
                {"role": "system", "content": "Answer in one sentence."},
                {"role": "user", "content": "Explain what causes ocean tides"},
            ],
        },
        "A stream, with the usage in its last chunk": {
            "model": "default",
            "messages": [{"role": "user", "content": "Explain what causes ocean tides"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
        "A tool": {
            "model": "default",
            "messages": [{"role": "user", "content": "What is the weather in Lisbon?"}],
            "tools": [_WEATHER_TOOL],
        },
        "The result of a tool": {
            "model": "default",
            "messages": [
                {"role": "user", "content": "What is the weather in Lisbon?"},
                {"role": "assistant", "content": None, "tool_calls": [_CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": "18 °C, sunny"},
            ],
            "tools": [_WEATHER_TOOL],
        },
        "An image": {
            "model": "default",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": "https://example.com/tide.png"}},
                    ],
                }
            ],
        },
    },
    "ChatCompletionChanges": {"New metadata": {"metadata": {"topic": "sea"}}},
    "EmbeddingRequest": {
        "A text": {"model": "hashing-1", "input": "tides of the ocean"},
        "Several texts, as base64": {
            "model": "hashing-1",
            "input": ["tides of the ocean", "the moon"],
            "encoding_format": "base64",
        },
    },
}

_MODEL = {"id": "default", "object": "model", "created": 0, "owned_by": "promptwire"}


def _embeddings(embedding: list[float] | str) -> dict[str, Any]:
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": embedding}],
        "model": "hashing-1",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


def _page(only: dict[str, Any]) -> dict[str, Any]:
    ends = {"first_id": only["id"], "last_id": only["id"]}
    return {"object": "list", "data": [only], **ends, "has_more": False}


_MESSAGE = {
    "id": "chatcmpl-1-0",
    "role": "user",
    "content": "Explain what causes ocean tides",
    "content_parts": None,
    "name": None,
}

ANSWERS: dict[str, tuple[str, Any]] = {
    "chat-completion": ("An answer", _completion(_ANSWER, "stop")),
    "chat-tool-calls": ("The model calls a tool", _completion(None, "tool_calls", tool_calls=[_CALL])),
    "chat-list": ("One chat completion", _page(_completion(_ANSWER, "stop"))),
    "chat-messages": ("The messages of a request", _page(_MESSAGE)),
    "chat-deleted": ("Deleted", {"id": "chatcmpl-1", "object": "chat.completion.deleted", "deleted": True}),
    "model": ("A model route", _MODEL),
    "models": ("A model route and the embedder", {"object": "list", "data": [_MODEL, _MODEL | {"id": "hashing-1"}]}),
    "embeddings": ("A vector (here of two numbers)", _embeddings([0.6, 0.8])),
    "embeddings-base64": ("The same in base64", _embeddings("mpkZP83MTD8=")),
}
