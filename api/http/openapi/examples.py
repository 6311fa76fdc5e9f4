"""Examples of requests and responses. Tests validate them against the schemas."""

from typing import Any

from api.http.openapi import webhook_examples
from shared.version import get_version

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
    "model": None,
    "usage": None,
    "finish_reason": None,
    "cached_from": None,
    "created_at": "2026-11-23T09:30:00.000Z",
    "completed_at": None,
}
_COMPLETED = _QUEUED | {
    "response_text": "Here is an explanation for “Explain what causes ocean tides”. Start from what it is for, …",
    "status": "completed",
    "position": None,
    "attempt": 1,
    "model": "simulated",
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
_RETRIED = _FAILED | {"status": "queued", "position": 1, "error": None, "completed_at": None}
_SIMILAR = {
    "id": 1,
    "user": "alice",
    "prompt_text": _COMPLETED["prompt_text"],
    "response_text": _COMPLETED["response_text"],
    "similarity_score": 0.6124,
    "created_at": _COMPLETED["created_at"],
}

_JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIiwiZXhwIjoxNzk1NDI3NzAwfQ."

_WORDS = "correct horse battery"
_CREDENTIALS = {"username": "alice", "password": _WORDS}
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

#: Request bodies, by the model's name: summary, value.
BODIES: dict[str, dict[str, Any]] = {
    "Registration": {"A user": _CREDENTIALS},
    "Credentials": {"A user": _CREDENTIALS},
    "RefreshToken": {"The newest token": {"refresh": _JWT + "kP3nVh4"}},
    "Submission": {
        "Only the text": _TEXT,
        "With events for the user's sockets": _TEXT | {"websocket": True},
        "From the cache, if possible": _TEXT | {"cache": True},
        "With earlier exchanges": {"prompt_text": "And on the moon?", "history": 3},
    },
    **webhook_examples.BODIES,
}


def _health(status: str, **checks: str) -> dict[str, Any]:
    return {"status": status, "version": get_version(), "checks": checks}


#: Response bodies, by a short name: summary, value.
ANSWERS: dict[str, tuple[str, Any]] = {
    "user": ("A new user", {"id": 1, "username": "alice", "created_at": "2026-11-23T09:00:00.000Z"}),
    "tokens": ("A pair of tokens", {"access": _JWT + "m2Yw0aQ", "refresh": _JWT + "kP3nVh4"}),
    "queued": ("Waiting for a worker", _QUEUED),
    "completed": ("Answered", _COMPLETED),
    "cut off": ("Cut off at the limit of tokens", _CUT_OFF),
    "waiting": ("Waiting for the provider", _WAITING),
    "cached": ("Answered from an earlier prompt", _CACHED),
    "failed": ("Failed", _FAILED),
    "cancelled": ("Cancelled", _CANCELLED),
    "retried": ("Queued again", _RETRIED),
    "page": ("A page", [_FAILED, _CACHED, _COMPLETED]),
    "similar": ("Results", [_SIMILAR]),
    "none": ("An empty list", []),
    "alive": ("It runs", _health("ok")),
    "ready": ("Everything works", _health("ok", postgres="ok", redis="ok")),
    "degraded": ("Without Redis", _health("degraded", postgres="ok", redis="unavailable")),
    "unready": ("Without Postgres", _health("unavailable", postgres="unavailable", redis="ok")),
    "unmigrated": ("Before the migrations", _health("unavailable", postgres="not migrated", redis="ok")),
    **webhook_examples.ANSWERS,
}

_ENDS = {"completed": _COMPLETED, "failed": _FAILED, "cancelled": _CANCELLED}
#: Bodies of requests to webhooks, by the type of the event.
EVENT_BODIES: dict[str, Any] = {
    **{
        f"prompt.{status}": {
            "type": f"prompt.{status}",
            "timestamp": prompt["completed_at"],
            "data": prompt | {"seq": 42},
        }
        for status, prompt in _ENDS.items()
    },
    "webhook.test": {"type": "webhook.test", "timestamp": "2026-11-23T09:29:00.000Z", "data": {"webhook_id": 1}},
}
