"""What is counted of attempts and their ends."""

from collections.abc import Sequence

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import ProviderError, ProviderUnavailableError
from shared.prompts.feed import FinishedPrompt
from shared.telemetry import metrics

log = structlog.get_logger(__name__)


def ended(endings: Sequence[FinishedPrompt]) -> None:
    """Counts prompts that have ended, all of them the same way."""
    if not endings:
        return
    metrics.finished.labels(endings[0].change).inc(len(endings))
    for kind, used in (("prompt", "prompt_tokens"), ("completion", "completion_tokens")):
        if total := sum(getattr(ending, used) or 0 for ending in endings):
            metrics.tokens.labels(kind).inc(total)


def lost(prompt_id: int) -> None:
    """Counts and logs that a claim was gone."""
    metrics.claims_lost.inc()
    log.info("claim lost", prompt_id=prompt_id)


def failed(error: Exception) -> None:
    """Counts an attempt that failed, by its reason."""
    metrics.attempts_failed.labels(_reason(error)).inc()


def _reason(error: Exception) -> str:
    if isinstance(error, SoftTimeLimitExceeded):
        return "timeout"
    if isinstance(error, ProviderUnavailableError):
        return "unavailable"
    return "provider" if isinstance(error, ProviderError) else "other"
