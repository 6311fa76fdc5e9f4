"""Turning what providers return into what can be stored and shown."""

from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import ProviderError
from shared.providers import Usage

MAX_ERROR_LENGTH = 2_000
MAX_MODEL_LENGTH = 200
MAX_TOKENS = 10**12


def storable(text: str) -> str:
    """The text without what PostgreSQL and UTF-8 cannot hold: NUL characters and lone surrogates are replaced."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def storable_usage(usage: Usage) -> Usage:
    """The usage without a model that is not a string, and without counts that are not plausible."""
    model = storable(usage.model)[:MAX_MODEL_LENGTH] if isinstance(usage.model, str) else None
    counts = (n if type(n) is int and 0 <= n < MAX_TOKENS else None for n in usage[1:])
    return Usage(model, *counts)


def public_message(error: Exception) -> str:
    """The error that the user sees: a provider's own words, else only the kind of failure."""
    if isinstance(error, ProviderError):
        return storable(str(error))[:MAX_ERROR_LENGTH]
    if isinstance(error, SoftTimeLimitExceeded):
        return "The generation took too long."
    return f"The generation failed ({type(error).__name__})."
