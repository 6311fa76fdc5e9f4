"""Examples of `/v1/responses`, rendered by the code that renders responses. Tests validate them against the schemas."""

import json
from datetime import UTC, datetime
from typing import Any

from shared.db.models import FrontApi, Priority, Status
from shared.openai.response_events import ResponseEvents, replay
from shared.openai.response_resource import StoredResponse, response_resource
from shared.prompts.answer import Answer, FinishReason
from shared.prompts.queries import PromptRow
from shared.providers.model_request import ModelRequest

_WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Lisbon"}'},
}
_QUESTION = "Explain what causes ocean tides"
_ANSWER = Answer("The moon pulls.", "simulated-1", "simulated-1", 5, 4, FinishReason.STOP)
_CREATED, _COMPLETED = (datetime(2026, 11, 23, 9, 30, seconds, tzinfo=UTC) for seconds in (0, 2))


def _response(prompt: dict[str, Any], asked: ModelRequest | None = None, **api_request: Any) -> StoredResponse:
    shown: dict[str, Any] = {
        "id": 1,
        "prompt_text": _QUESTION,
        "status": Status.COMPLETED,
        "websocket": True,
        "attempt": 1,
        "error": None,
        "seq": 1,
        "cache": None,
        "history": 0,
        "route": "default",
        "priority": Priority.DEFAULT,
        "metadata": None,
        "api": FrontApi.RESPONSES,
        "created_at": _CREATED,
        "completed_at": _COMPLETED,
        "emptied_at": None,
        "answer": _ANSWER,
    }
    return StoredResponse(PromptRow(**(shown | prompt)), asked or ModelRequest(), api_request)


_COMPLETE = _response({})
_QUEUED = _response({"status": Status.QUEUED, "attempt": 0, "completed_at": None, "answer": Answer()}, background=True)
_CANCELLED = _response({"status": Status.CANCELLED, "attempt": 0, "answer": Answer()}, background=True)
_CALLING = _response(
    {"answer": _ANSWER._replace(response_text="", tool_calls=[_CALL], finish_reason=FinishReason.TOOL_CALLS)},
    ModelRequest(tools=[{"type": "function", "function": _WEATHER}]),
)

STREAM = "".join(
    f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
    for event in replay(ResponseEvents(_COMPLETE), _COMPLETE)
    if "response" not in event  # which would be long here
)

BODIES: dict[str, dict[str, Any]] = {
    "ResponseRequest": {
        "A question": {"model": "default", "instructions": "Answer in one sentence.", "input": _QUESTION},
        "In the background, as a stream": {"input": _QUESTION, "background": True, "stream": True},
        "A continued conversation": {"input": "And why twice a day?", "previous_response_id": "resp_1"},
        "A function": {"input": "What is the weather in Lisbon?", "tools": [{"type": "function", **_WEATHER}]},
        "The result of a function": {
            "previous_response_id": "resp_1",
            "input": [{"type": "function_call_output", "call_id": "call_1", "output": "18 °C, sunny"}],
        },
        "An image": {
            "input": [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What is this?"},
                        {"type": "input_image", "image_url": "https://example.com/tide.png"},
                    ],
                }
            ]
        },
    },
}

_ITEM = {
    "type": "message",
    "role": "user",
    "content": [{"type": "input_text", "text": _QUESTION}],
    "id": "in_1_1",
    "status": "completed",
}

ANSWERS: dict[str, tuple[str, Any]] = {
    "response": ("Completed", response_resource(_COMPLETE)),
    "response-queued": ("Queued, in the background", response_resource(_QUEUED)),
    "response-cancelled": ("Cancelled", response_resource(_CANCELLED)),
    "response-calls": ("The model calls a function", response_resource(_CALLING)),
    "response-deleted": ("Deleted", {"id": "resp_1", "object": "response", "deleted": True}),
    "response-input": (
        "The input",
        {"object": "list", "data": [_ITEM], "first_id": "in_1_1", "last_id": "in_1_1", "has_more": False},
    ),
}
