"""Turning what providers return into what can be stored and shown."""

from datetime import timedelta

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
    """The usage without a name that is not a string, counts that are not plausible, and unknown finish reasons."""
    return Usage(
        _name(usage.model),
        _count(usage.prompt_tokens),
        _count(usage.completion_tokens),
        _finish_reason(usage.finish_reason),
    )


def _name(value: object) -> str | None:
    return storable(value)[:MAX_NAME_LENGTH] if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < MAX_TOKENS else None


def _finish_reason(value: object) -> str | None:
    try:
        return FinishReason(value).value if isinstance(value, str) else None
    except ValueError:
        return None


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
