"""Turning what providers return into what can be stored and shown."""

import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import ProviderError
from shared.prompts.answer import FinishReason
from shared.providers import Usage
from worker.generator_guard import ProviderExitedError

MAX_ERROR_LENGTH = 2_000
MAX_NAME_LENGTH = 200
MAX_TOKENS = 10**12


def storable(text: str) -> str:
    """The text without what PostgreSQL and UTF-8 cannot hold: NUL characters and lone surrogates are replaced."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def storable_usage(usage: Usage) -> Usage:
    """The usage without a name that is not a string, counts that are not plausible, and unknown finish reasons.

    Raises:
        ProviderError: its tool calls do not have the shape of chat completions.
    """
    return Usage(
        _name(usage.model),
        _count(usage.prompt_tokens),
        _count(usage.completion_tokens),
        _finish_reason(usage.finish_reason),
        _tool_calls(usage.tool_calls),
    )


def tool_call_bytes(usage: Usage) -> int:
    """How much text the tool calls have, in bytes of UTF-8: names and arguments."""
    called = (call["function"] for call in usage.tool_calls or ())
    return sum(len((each["name"] + each["arguments"]).encode()) for each in called)


def _name(value: object) -> str | None:
    return storable(value)[:MAX_NAME_LENGTH] if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < MAX_TOKENS else None


def _finish_reason(value: object) -> str | None:
    try:
        return FinishReason(value).value if isinstance(value, str) else None
    except ValueError:
        return None


def _tool_calls(calls: Sequence[Any] | None) -> list[dict[str, Any]] | None:
    """The calls with these keys only: an id, which is made if it is missing, and the function's name and arguments."""
    if not calls:
        return None
    try:
        return [_tool_call(call.get("id"), call["function"]) for call in calls]
    except (TypeError, KeyError, AttributeError):
        raise ProviderError("The generator yielded tool calls that are not those of chat completions.") from None


def _tool_call(call_id: object, function: Mapping[str, Any]) -> dict[str, Any]:
    name, arguments = function["name"], function["arguments"]
    if not (isinstance(name, str) and isinstance(arguments, str) and name):
        raise TypeError
    kept_id = storable(call_id) if isinstance(call_id, str) and call_id else f"call_{uuid.uuid4().hex[:24]}"
    called = {"name": storable(name), "arguments": storable(arguments)}
    return {"id": kept_id[:MAX_NAME_LENGTH], "type": "function", "function": called}


def public_message(error: Exception, time_limit: timedelta | None = None) -> str:
    """The error that the user sees: a provider's own words, else only the kind of failure.

    `time_limit` is GENERATION_TIMEOUT_SECONDS, for an attempt that has exceeded it.
    """
    if isinstance(error, ProviderError):
        return storable(str(error))[:MAX_ERROR_LENGTH]
    if isinstance(error, SoftTimeLimitExceeded):
        length = "too long" if time_limit is None else f"longer than {time_limit.total_seconds():g} seconds"
        return f"The generation took {length} (GENERATION_TIMEOUT_SECONDS)."
    cause = error.__cause__ if isinstance(error, ProviderExitedError) else error
    return f"The generation failed ({type(cause).__name__})."
