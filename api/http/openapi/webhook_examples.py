"""Examples of webhooks in requests and responses. Tests validate them against the schemas."""

from typing import Any

_WEBHOOK = {
    "id": 1,
    "url": "https://hooks.example/promptwire",
    "events": None,
    "description": "The shop's backend",
    "status": "enabled",
    "disabled_reason": None,
    "paused_until": None,
    "failures": 0,
    "previous_secret_expires_at": None,  # nosec B105
    "created_at": "2026-11-23T09:00:00.000Z",
}
_PAUSED = _WEBHOOK | {"status": "paused", "paused_until": "2026-11-23T09:35:10.000Z", "failures": 3}
_DISABLED = _WEBHOOK | {"status": "disabled", "disabled_reason": "You have disabled it."}
_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD9lGjAAAAAAA="  # noqa: S105  # nosec B105
_ROTATED = _WEBHOOK | {"secret": _SECRET, "previous_secret_expires_at": "2026-11-24T09:40:00.000Z"}  # nosec B105
_ATTEMPT = {"number": 1, "at": "2026-11-23T09:30:00.520Z", "status_code": 204, "error": None, "seconds": 0.082}
_REFUSED = {"number": 1, "at": "2026-11-23T09:30:00.520Z", "status_code": 500, "error": None, "seconds": 0.04}
_DELIVERED = {
    "id": 12,
    "message_id": "msg_1_42",
    "event": "prompt.completed",
    "seq": 42,
    "prompt_id": 7,
    "batch_id": None,
    "status": "delivered",
    "attempts": [_ATTEMPT],
    "next_attempt_at": None,
    "created_at": "2026-11-23T09:30:00.412Z",
    "ended_at": "2026-11-23T09:30:00.602Z",
}
_PENDING = _DELIVERED | {
    "status": "pending",
    "attempts": [_REFUSED],
    "next_attempt_at": "2026-11-23T09:30:05.560Z",
    "ended_at": None,
}
_TEST = _PENDING | {
    "id": 13,
    "message_id": "msg_1_test_13",
    "event": "webhook.test",
    "seq": None,
    "prompt_id": None,
    "batch_id": None,
    "attempts": [],
}

#: Request bodies, by the model's name: summary, value.
BODIES: dict[str, dict[str, Any]] = {
    "NewWebhook": {
        "For all events": {"url": _WEBHOOK["url"]},
        "For some": {"url": _WEBHOOK["url"], "events": ["prompt.completed"], "description": "The shop's backend"},
    },
    "WebhookChanges": {
        "Another URL": {"url": "https://hooks.example/new"},
        "Enable it again": {"disabled": False},
        "For all events": {"events": None},
    },
    "Recovery": {"After the last event that arrived": {"since": 0}},
}

#: Response bodies, by a short name: summary, value.
ANSWERS: dict[str, tuple[str, Any]] = {
    "new webhook": ("A new webhook", _WEBHOOK | {"secret": _SECRET}),
    "rotated": ("The new secret", _ROTATED),
    "webhook": ("A webhook", _WEBHOOK),
    "paused": ("Its last deliveries failed", _PAUSED),
    "disabled": ("A disabled webhook", _DISABLED),
    "webhooks": ("Webhooks", [_WEBHOOK]),
    "test": ("A test event", _TEST),
    "pending": ("A pending delivery", _PENDING),
    "deliveries": ("Deliveries", [_TEST, _DELIVERED]),
    "recovered": ("Three events", {"deliveries": 3}),
}
