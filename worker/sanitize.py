"""Turning what providers return into what can be stored and shown."""

from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import ProviderError
from shared.providers import Usage

MAX_ERROR_LENGTH = 2_000
MAX_NAME_LENGTH = 200
MAX_TOKENS = 10**12


def storable(text: str) -> str:
    """The text without what PostgreSQL and UTF-8 cannot hold: NUL characters and lone surrogates are replaced."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def storable_usage(usage: Usage) -> Usage:
    """The usage without names that are not strings, and without counts that are not plausible."""
    return Usage(
        _name(usage.model), _count(usage.prompt_tokens), _count(usage.completion_tokens), _name(usage.finish_reason)
    )


def _name(value: object) -> str | None:
    return storable(value)[:MAX_NAME_LENGTH] if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < MAX_TOKENS else None


def public_message(error: Exception) -> str:
    """The error that the user sees: a provider's own words, else only the kind of failure."""
    if isinstance(error, ProviderError):
        return storable(str(error))[:MAX_ERROR_LENGTH]
    if isinstance(error, SoftTimeLimitExceeded):
        return "The generation took too long."
    return f"The generation failed ({type(error).__name__})."
