"""Examples of requests and responses. Tests validate them against the schemas."""

import json
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
    "emptied_at": None,
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

_KEY = {
    "id": 1,
    "name": "Nightly report",
    "prefix": "pw_3kTMd9fV",
    "scopes": ["prompts:read", "prompts:write"],
    "models": None,
    "expires_at": "2027-11-23T09:30:00.000Z",
    "rate_limit": "100/hour",
    "monthly_tokens": 1_000_000,
    "used_tokens": 0,
    "reserved_tokens": 0,
    "created_at": "2026-11-23T09:30:00.000Z",
    "last_used_at": None,
}
_WHOLE_KEY = "pw_3kTMd9fVqYbX0hLw2Zr8cJ5nGs7aEoUi1DpKxR4mWtQ2kmvXK"

_JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIiwiZXhwIjoxNzk1NDI3NzAwfQ."

_WORDS = "correct horse battery"
_OTHER_WORDS = "battery staple, correct"
#: Not those of any other example: who tries one example after the other keeps the account.
_NOBODYS_WORDS = "the words of this account"
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

#: The first line of a response of `GET /account/export/`.
EXPORT = json.dumps(
    _COMPLETED
    | {
        "request_id": "7f0c6f2a5d1e4b7c9a3d8e6f5b4c3a21",
        "seq": 1,
        "route": "default",
        "generator": "simulated",
        "cache": None,
        "api_key_id": None,
        "queued_at": "2026-11-23T09:30:00.000Z",
        "used_prompt_tokens": 5,
        "used_completion_tokens": 42,
        "emptied_at": None,
    }
)

_LIMITS = {
    "prompt_rate_limit": "1/second;10/minute",
    "user_backlog_limit": 1000,
    "user_running_limit": None,
    "user_socket_limit": 100,
    "user_wait_limit": 100,
    "user_search_limit": 4,
    "user_monthly_tokens": None,
}
_ACCOUNT = {
    "id": 1,
    "username": "alice",
    "is_admin": False,
    "created_at": "2026-11-23T09:00:00.000Z",
    "authenticated_by": "login",
    "key": None,
    "limits": _LIMITS,
}
_ACCOUNT_KEY = {
    "id": 3,
    "scopes": ["prompts:read", "prompts:write"],
    "models": None,
    "rate_limit": "5/minute",
    "monthly_tokens": 1_000_000,
}
_LOGIN = {
    "id": "6a1c0d6e-8d4f-4c43-a0c0-5d2f2a3c6a11",
    "created_at": "2026-11-23T09:00:00.000Z",
    "last_used_at": "2026-11-23T09:45:00.000Z",
    "expires_at": "2026-12-23T09:45:00.000Z",
    "address": "192.0.2.7",
    "user_agent": "promptwire/1.0",
    "is_current": True,
}

#: Request bodies, by the model's name: summary, value.
BODIES: dict[str, dict[str, Any]] = {
    "Registration": {"A user": _CREDENTIALS},
    "Credentials": {"A user": _CREDENTIALS},
    "PasswordChange": {"Both passwords": {"current_password": _WORDS, "password": _OTHER_WORDS}},
    "AccountDeletion": {"The password": {"password": _NOBODYS_WORDS}},
    "UserChange": {"An admin": {"is_admin": True}},
    "RefreshToken": {"The newest token": {"refresh": _JWT + "kP3nVh4"}},
    "NewApiKey": {
        "For prompts": {"name": "Nightly report"},
        "With limits": {
            "name": "Nightly report",
            "scopes": ["prompts:read", "prompts:write"],
            "models": ["default"],
            "expires_at": "2099-12-31T00:00:00Z",
            "rate_limit": "100/hour",
            "monthly_tokens": 1_000_000,
        },
    },
    "Submission": {
        "Only the text": _TEXT,
        "With events for the user's sockets": _TEXT | {"websocket": True},
        "From the cache, if possible": _TEXT | {"cache": True},
        "With earlier exchanges": {"prompt_text": "And on the moon?", "history": 3},
    },
    **webhook_examples.BODIES,
}

_USED = {"prompts": 12, "prompt_tokens": 340, "completion_tokens": 5210, "total_tokens": 5550, "cost": 0.0104}
_BOB = {"id": 2, "username": "bob"}
_ADMIN_USER = {
    **_BOB,
    "is_admin": False,
    "created_at": "2026-11-02T08:00:00.000Z",
    "logins": 1,
    "keys": 2,
    "unfinished": 3,
    "this_month": _USED,
}
_ADMIN_KEY = {
    "id": 7,
    "user": _BOB,
    "name": "nightly report",
    "prefix": "pw_4Xq9Zt0a",
    "scopes": ["prompts:read", "prompts:write"],
    "models": None,
    "rate_limit": None,
    "monthly_tokens": 1_000_000,
    "created_at": "2026-11-02T08:05:00.000Z",
    "expires_at": None,
    "last_used_at": "2026-11-23T09:30:00.000Z",
    "revoked_at": None,
    "this_month": _USED,
}
_LOAD = {"model": "default", "user": None, "queued": 3, "running": 1, "oldest_waiting_seconds": 4.2}
_QUEUE = {
    "models": [_LOAD],
    "users": [_LOAD | {"user": _BOB}],
    "running": [
        {
            "id": 41,
            "user": _BOB,
            "model": "default",
            "attempt": 1,
            "queued_at": "2026-11-23T09:30:00.000Z",
            "leased_until": "2026-11-23T09:31:00.000Z",
        }
    ],
    "providers": [
        {
            "model": "default",
            "paused_until": "2026-11-23T09:30:04.000Z",
            "detail": "The provider could not be reached.",
            "unavailable_since": "2026-11-23T09:29:50.000Z",
            "failures": 3,
            "concurrency": None,
        }
    ],
}
_FAILURES = {
    "error": "The provider failed.",
    "count": 12,
    "users": 2,
    "first_at": "2026-11-23T08:00:00.000Z",
    "last_at": "2026-11-23T09:30:00.000Z",
    "newest_prompt_id": 40,
    "model": "default",
}
_ACT = {
    "id": 5,
    "at": "2026-11-23T09:30:00.000Z",
    "actor": {"id": 1, "username": "alice"},
    "key_id": None,
    "action": "key.revoked",
    "user": _BOB,
    "details": {"key_id": 7},
    "address": "203.0.113.9",
    "request_id": "7f0c6f2a5d1e4b7c9a3d8e6f5b4c3a21",
}


def _health(status: str, **checks: str) -> dict[str, Any]:
    return {"status": status, "version": get_version(), "checks": checks}


_KEY_BUDGET = {
    "key": 1,
    "monthly_tokens": 100_000,
    "used_tokens": 4_600,
    "reserved_tokens": 1_012,
    "resets_at": "2026-12-01T00:00:00.000Z",
}


def _usage(by: str, group: object) -> dict[str, Any]:
    sums = {"rows": [{by: group} | _USED], "total": _USED}
    return {"by": by, "since": "2026-11-01", "until": "2026-11-30", **sums}


def _own_usage(by: str, group: object) -> dict[str, Any]:
    return _usage(by, group) | {"budgets": [_KEY_BUDGET]}


#: Response bodies, by a short name: summary, value.
ANSWERS: dict[str, tuple[str, Any]] = {
    "user": ("A new user", {"id": 1, "username": "alice", "created_at": "2026-11-23T09:00:00.000Z"}),
    "account": ("By a login", _ACCOUNT),
    "account by key": ("By an API key", _ACCOUNT | {"authenticated_by": "api_key", "key": _ACCOUNT_KEY}),
    "logins": ("Logins", [_LOGIN]),
    "tokens": ("A pair of tokens", {"access": _JWT + "m2Yw0aQ", "refresh": _JWT + "kP3nVh4"}),
    "new key": ("A new key", _KEY | {"key": _WHOLE_KEY}),
    "keys": (
        "Keys",
        [_KEY | {"used_tokens": 4_600, "reserved_tokens": 1_012, "last_used_at": "2026-11-24T02:00:00.000Z"}],
    ),
    "queued": ("Waiting for a worker", _QUEUED),
    "completed": ("Answered", _COMPLETED),
    "cut off": ("Cut off at the limit of tokens", _CUT_OFF),
    "waiting": ("Waiting for the provider", _WAITING),
    "cached": ("Answered from an earlier prompt", _CACHED),
    "failed": ("Failed", _FAILED),
    "cancelled": ("Cancelled", _CANCELLED),
    "emptied": ("Emptied after RETENTION_DAYS", _EMPTIED),
    "retried": ("Queued again", _RETRIED),
    "page": ("A page", [_FAILED, _CACHED, _COMPLETED]),
    "similar": ("Results", [_SIMILAR]),
    "none": ("An empty list", []),
    "admin user": ("A user", _ADMIN_USER),
    "admin users": ("A page", [_ADMIN_USER]),
    "admin keys": ("A page", [_ADMIN_KEY]),
    "admin usage": ("By user", _usage("user", _BOB)),
    "admin queue": ("A queue", _QUEUE),
    "admin failures": ("One error", [_FAILURES]),
    "admin audit": ("A page", [_ACT]),
    "usage by day": ("By day", _own_usage("day", "2026-11-23")),
    "usage by model": ("By model", _own_usage("model", "default")),
    "usage by key": ("By API key", _own_usage("key", {"id": 1, "name": "nightly job", "prefix": "pw_3kTz9Qx1"})),
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
