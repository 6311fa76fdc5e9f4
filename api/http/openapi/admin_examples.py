"""Examples of what admins send and get. Tests validate them against the schemas."""

from typing import Any

from api.http.openapi.account_examples import USED, usage

_BOB = {"id": 2, "username": "bob"}
_ADMIN_USER = {
    **_BOB,
    "is_admin": False,
    "is_viewer": False,
    "created_at": "2026-11-02T08:00:00.000Z",
    "logins": 1,
    "keys": 2,
    "unfinished": 3,
    "has_password": True,  # nosec B105
    "has_identity": False,
    "this_month": USED,
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
    "this_month": USED,
}
_LOAD = {"model": "default", "user": None, "queued": 3, "running": 1, "oldest_waiting_seconds": 4.2}
_QUEUE: dict[str, Any] = {
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
            "pause": None,
            "paused_until": "2026-11-23T09:30:04.000Z",
            "detail": "The provider could not be reached.",
            "unavailable_since": "2026-11-23T09:29:50.000Z",
            "failures": 3,
            "concurrency": None,
        }
    ],
}
_MODEL = _QUEUE["providers"][0] | {
    "pause": {
        "since": "2026-11-23T09:30:00.000Z",
        "by": {"id": 1, "username": "alice"},
        "reason": "The provider's contract ends.",
    },
    "paused_until": None,
    "detail": None,
    "unavailable_since": None,
    "failures": 0,
}
_FILTER = {"error": "The provider failed.", "since": "2026-11-23T08:00:00.000Z"}
_COUNT = {
    "action": "retry",
    "filter": _FILTER,
    "count": 12,
    "max_count": 100_000,
    "users": 2,
    "models": [{"model": "default", "prompts": 12, "users": 2}],
}
_OPERATION = {
    "id": 3,
    "action": "retry",
    "filter": _FILTER,
    "status": "running",
    "total": 12,
    "changed": 5,
    "skipped": 1,
    "undone": 0,
    "created_at": "2026-11-23T09:31:00.000Z",
    "ended_at": None,
    "actor": {"id": 1, "username": "alice"},
    "key_id": None,
}
_WORKER = {
    "host": "worker-1",
    "pid": 17,
    "version": "2.0.0",
    "pool": "threads",
    "concurrency": 200,
    "models": ["default"],
    "active_tasks": 12,
    "started_at": "2026-11-23T08:00:00.000Z",
    "seen_at": "2026-11-23T09:30:58.000Z",
    "is_lost": False,
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

#: Request bodies, by the model's name: summary, value.
BODIES: dict[str, dict[str, Any]] = {
    "NewOperation": {
        "Count": {"action": "retry", "filter": _FILTER, "dry_run": True},
        "Retry what has failed": {"action": "retry", "filter": _FILTER, "expected_count": 12},
        "Cancel what waits": {
            "action": "cancel",
            "filter": {"model": "default", "status": "queued"},
            "expected_count": 7,
        },
    },
    "PauseBody": {"With a reason": {"reason": "The provider's contract ends."}},
    "UserChange": {"An admin": {"is_admin": True}, "A viewer": {"is_viewer": True}},
}

#: Response bodies, by a short name: summary, value.
ANSWERS: dict[str, tuple[str, Any]] = {
    "admin user": ("A user", _ADMIN_USER),
    "admin users": ("A page", [_ADMIN_USER]),
    "admin keys": ("A page", [_ADMIN_KEY]),
    "admin usage": ("By user", usage("user", _BOB)),
    "admin queue": ("A queue", _QUEUE),
    "admin model": ("A paused model", _MODEL),
    "admin models": ("One paused model", [_MODEL]),
    "admin workers": ("One host", [_WORKER]),
    "admin operation": ("A retry", _OPERATION),
    "admin operations": ("A page", [_OPERATION]),
    "operation count": ("A dry run", _COUNT),
    "admin failures": ("One error", [_FAILURES]),
    "admin audit": ("A page", [_ACT]),
}
