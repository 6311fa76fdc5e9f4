"""Examples of accounts, API keys and usage in requests and responses. Tests validate them against the schemas."""

from typing import Any

_JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxIiwiZXhwIjoxNzk1NDI3NzAwfQ."
_WORDS = "correct horse battery"
_OTHER_WORDS = "battery staple, correct"
#: Not the password of any other example, so that a reader who tries all examples keeps the account.
_WORDS_OF_NO_OTHER = "the words of this account"
_CREDENTIALS = {"username": "alice", "password": _WORDS}

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
    "is_viewer": False,
    "created_at": "2026-11-23T09:00:00.000Z",
    "has_password": True,  # nosec B105
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

_CODE = {"code": "mQ0v9Yw3kS2", "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"}
_IDENTITY = {
    "id": 1,
    "issuer": "https://login.example.com",
    "subject": "248289761001",
    "created_at": "2026-11-23T09:00:00.000Z",
    "last_used_at": None,
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

USED = {"prompts": 12, "prompt_tokens": 340, "completion_tokens": 5210, "total_tokens": 5550, "cost": 0.0104}
_KEY_BUDGET = {
    "key": 1,
    "monthly_tokens": 100_000,
    "used_tokens": 4_600,
    "reserved_tokens": 1_012,
    "resets_at": "2026-12-01T00:00:00.000Z",
}


def usage(by: str, group: object) -> dict[str, Any]:
    """A UsageReport with one row."""
    sums = {"rows": [{by: group} | USED], "total": USED}
    return {"by": by, "since": "2026-11-01", "until": "2026-11-30", **sums}


def _own_usage(by: str, group: object) -> dict[str, Any]:
    return usage(by, group) | {"budgets": [_KEY_BUDGET]}


#: Request bodies, by the model's name: summary, value.
BODIES: dict[str, dict[str, Any]] = {
    "Registration": {"A user": _CREDENTIALS},
    "Credentials": {"A user": _CREDENTIALS},
    "PasswordChange": {"Both passwords": {"current_password": _WORDS, "password": _OTHER_WORDS}},
    "AccountDeletion": {"The password": {"password": _WORDS_OF_NO_OTHER}, "A sign-in": _CODE},
    "SignInCode": {"A sign-in": _CODE},
    "NewIdentity": {"A sign-in, and the password": _CODE | {"password": _WORDS}},
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
}

#: Response bodies, by a short name: summary, value.
ANSWERS: dict[str, tuple[str, Any]] = {
    "user": ("A new user", {"id": 1, "username": "alice", "created_at": "2026-11-23T09:00:00.000Z"}),
    "tokens": ("A pair of tokens", {"access": _JWT + "m2Yw0aQ", "refresh": _JWT + "kP3nVh4"}),
    "sign-in method": ("An identity provider", {"name": "Example Inc."}),
    "no sign-in method": ("Passwords only", {"name": None}),
    "sign-in": ("A login", {"access": _JWT + "m2Yw0aQ", "refresh": _JWT + "kP3nVh4", "username": "alice"}),
    "identity": ("The identity", _IDENTITY),
    "identities": ("Identities", [_IDENTITY]),
    "account": ("By a login", _ACCOUNT),
    "account by key": ("By an API key", _ACCOUNT | {"authenticated_by": "api_key", "key": _ACCOUNT_KEY}),
    "logins": ("Logins", [_LOGIN]),
    "new key": ("A new key", _KEY | {"key": _WHOLE_KEY}),
    "keys": (
        "Keys",
        [_KEY | {"used_tokens": 4_600, "reserved_tokens": 1_012, "last_used_at": "2026-11-24T02:00:00.000Z"}],
    ),
    "usage by day": ("By day", _own_usage("day", "2026-11-23")),
    "usage by model": ("By model", _own_usage("model", "default")),
    "usage by key": ("By API key", _own_usage("key", {"id": 1, "name": "nightly job", "prefix": "pw_3kTz9Qx1"})),
}
