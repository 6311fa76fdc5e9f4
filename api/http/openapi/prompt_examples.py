"""Examples of prompts in requests and responses. Tests validate them against the schemas."""

import json
from typing import Any

_QUEUED = {
    "id": 1,
    "user": "alice",
    "prompt_text": "Explain what causes ocean tides",
    "response_text": None,
    "status": "queued",
    "websocket": False,
    "attempt": 0,
    "error": None,
    "history": 0,
    "priority": "default",
    "position": 1,
    "waiting_for": None,
    "metadata": {},
    "model": "default",
    "provider_model": None,
    "usage": None,
    "finish_reason": None,
    "tool_calls": None,
    "cached_from": None,
    "created_at": "2026-11-23T09:30:00.000Z",
    "completed_at": None,
    "emptied_at": None,
}
_COMPLETED = _QUEUED | {
    "response_text": "Here is an explanation for “Explain what causes ocean tides”. Start from what it is for, …",
    "status": "completed",
    "position": None,
    "attempt": 1,
    "provider_model": "simulated",
    "usage": {"prompt_tokens": 5, "completion_tokens": 42, "total_tokens": 47},
    "finish_reason": "stop",
    "completed_at": "2026-11-23T09:30:00.412Z",
}
_CACHED = _COMPLETED | {
    "id": 2,
    "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    "cached_from": 1,
    "created_at": "2026-11-23T09:31:00.000Z",
    "completed_at": "2026-11-23T09:31:00.020Z",
}
_CUT_OFF = _COMPLETED | {
    "response_text": "Here is an explanation for “Explain what causes",
    "usage": {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15},
    "finish_reason": "length",
}
_WAITING = _QUEUED | {
    "attempt": 1,
    "waiting_for": {
        "reason": "provider",
        "detail": "The provider could not be reached.",
        "next_attempt_at": "2026-11-23T09:30:04.000Z",
    },
}
_FAILED = _QUEUED | {
    "id": 3,
    "status": "failed",
    "position": None,
    "attempt": 5,
    "error": "The provider failed.",
    "completed_at": "2026-11-23T09:32:07.000Z",
}
_CANCELLED = _QUEUED | {"status": "cancelled", "position": None, "completed_at": "2026-11-23T09:30:01.250Z"}
_REQUEST = {
    "instructions": "Answer for children.",
    "temperature": 0.2,
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "tides",
            "schema": {
                "type": "object",
                "properties": {"cause": {"type": "string"}, "per_day": {"type": "integer"}},
                "required": ["cause", "per_day"],
                "additionalProperties": False,
            },
            "strict": True,
        },
    },
}
_METADATA = {"customer": "42", "topic": "tides"}
_STRUCTURED = _COMPLETED | {
    "response_text": '{"cause": "The gravity of the moon and the sun", "per_day": 2}',
    "metadata": _METADATA,
    "request": _REQUEST,
}
_CALLING = _COMPLETED | {
    "prompt_text": "How high is the tide in Bergen?",
    "response_text": "",
    "finish_reason": "tool_calls",
    "tool_calls": [
        {
            "id": "call_1f0c6f2a5d1e",
            "type": "function",
            "function": {"name": "get_tide", "arguments": '{"place": "Bergen"}'},
        }
    ],
}
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_tide",
        "description": "The height of the tide at a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
_EMPTIED = _COMPLETED | {"prompt_text": "", "response_text": None, "emptied_at": "2026-12-23T09:40:00.000Z"}
_RETRIED = _FAILED | {"status": "queued", "position": 1, "error": None, "completed_at": None}
_SIMILAR = {
    "id": 1,
    "user": "alice",
    "prompt_text": _COMPLETED["prompt_text"],
    "response_text": _COMPLETED["response_text"],
    "similarity_score": 0.6124,
    "created_at": _COMPLETED["created_at"],
}
_TEXT = {"prompt_text": "Explain what causes ocean tides"}

#: A response of `GET /prompts/{prompt_id}/stream/`.
STREAM = """retry: 1000

:

id: 1-24
event: prompt.delta
data: {"type":"prompt.delta","id":1,"attempt":1,"offset":0,"text":"Here is an explanation f"}

id: 1-31
event: prompt.delta
data: {"type":"prompt.delta","id":1,"attempt":1,"offset":24,"text":"or you."}

id: 1-end
event: prompt.completed
data: {"type":"prompt.completed","id":1,"user":"alice","response_text":"Here is an explanation for you.",…}

"""

#: The first line of a response of `GET /account/export/`.
EXPORT = json.dumps(
    _COMPLETED
    | {
        "request": None,
        "api": None,
        "api_request": None,
        "batch_id": None,
        "request_id": "7f0c6f2a5d1e4b7c9a3d8e6f5b4c3a21",
        "seq": 1,
        "route": "default",
        "generator": "simulated",
        "cache": None,
        "api_key_id": None,
        "queued_at": "2026-11-23T09:30:00.000Z",
        "used_prompt_tokens": 5,
        "used_completion_tokens": 42,
    }
)

#: Request bodies, by the model's name: summary, value.
BODIES: dict[str, dict[str, Any]] = {
    "Submission": {
        "Only the text": _TEXT,
        "With events for the user's sockets": _TEXT | {"websocket": True},
        "From the cache, if possible": _TEXT | {"cache": True},
        "With earlier exchanges": {"prompt_text": "And on the moon?", "history": 3},
        "With a JSON Schema and metadata": _TEXT | _REQUEST | {"model": "default", "metadata": _METADATA},
        "With earlier turns": {
            "prompt_text": "And on the moon?",
            "messages": [
                {"role": "user", "content": "Explain what causes ocean tides"},
                {"role": "assistant", "content": "The gravity of the moon and the sun."},
            ],
            "max_output_tokens": 200,
            "stop": ["\n\n"],
        },
        "With a tool": {"prompt_text": "How high is the tide in Bergen?", "tools": [_TOOL], "tool_choice": "auto"},
    },
}

#: Response bodies, by a short name: summary, value.
ANSWERS: dict[str, tuple[str, Any]] = {
    "queued": ("Waiting for a worker", _QUEUED),
    "completed": ("Answered", _COMPLETED),
    "cut off": ("Cut off at the limit of tokens", _CUT_OFF),
    "waiting": ("Waiting for the provider", _WAITING),
    "calling": ("Calling a tool", _CALLING),
    "shown": ("Waiting for a worker", _QUEUED),
    "shown waiting": ("Waiting for the provider", _WAITING),
    "shown completed": ("Answered", _COMPLETED),
    "with a schema": ("Answered by a JSON Schema", _STRUCTURED),
    "shown failed": ("Failed", _FAILED),
    "shown emptied": ("Emptied because of its age", _EMPTIED),
    "cached": ("Answered from an earlier prompt", _CACHED),
    "failed": ("Failed", _FAILED),
    "cancelled": ("Cancelled", _CANCELLED),
    "emptied": ("Emptied after RETENTION_DAYS", _EMPTIED),
    "retried": ("Queued again", _RETRIED),
    "page": ("A page", [_FAILED, _CACHED, _COMPLETED]),
    "similar": ("Results", [_SIMILAR]),
}

_ENDED = {"completed": _COMPLETED, "failed": _FAILED, "cancelled": _CANCELLED}
#: Bodies of requests to webhooks, by the type of the event.
EVENT_BODIES: dict[str, Any] = {
    **{
        f"prompt.{status}": {
            "type": f"prompt.{status}",
            "timestamp": prompt["completed_at"],
            "data": prompt | {"seq": 42},
        }
        for status, prompt in _ENDED.items()
    },
    "webhook.test": {"type": "webhook.test", "timestamp": "2026-11-23T09:29:00.000Z", "data": {"webhook_id": 1}},
}
