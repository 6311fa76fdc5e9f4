"""All examples of requests and responses, by subject. Tests validate them against the schemas."""

from typing import Any

from api.http.openapi import (
    account_examples,
    admin_examples,
    batch_examples,
    openai_examples,
    prompt_examples,
    responses_examples,
    webhook_examples,
)
from shared.version import get_version


def _health(status: str, **checks: str) -> dict[str, Any]:
    return {"status": status, "version": get_version(), "checks": checks}


#: Request bodies, by the model's name: summary, value.
BODIES: dict[str, dict[str, Any]] = {
    **account_examples.BODIES,
    **prompt_examples.BODIES,
    **webhook_examples.BODIES,
    **admin_examples.BODIES,
    **batch_examples.BODIES,
    **openai_examples.BODIES,
    **responses_examples.BODIES,
}

#: Response bodies, by a short name: summary, value.
ANSWERS: dict[str, tuple[str, Any]] = {
    "none": ("An empty list", []),
    **account_examples.ANSWERS,
    **prompt_examples.ANSWERS,
    **webhook_examples.ANSWERS,
    **admin_examples.ANSWERS,
    **batch_examples.ANSWERS,
    **openai_examples.ANSWERS,
    **responses_examples.ANSWERS,
    "alive": ("It runs", _health("ok")),
    "ready": ("Everything works", _health("ok", postgres="ok", redis="ok")),
    "degraded": ("Without Redis", _health("degraded", postgres="ok", redis="unavailable")),
    "unready": ("Without Postgres", _health("unavailable", postgres="unavailable", redis="ok")),
    "unmigrated": ("Before the migrations", _health("unavailable", postgres="not migrated", redis="ok")),
}
