"""Metrics of attempts and how they end."""

from collections.abc import Sequence

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from shared.errors import ProviderError, ProviderUnavailableError
from shared.prompts.feed import FinishedPrompt
from shared.telemetry import metrics

log = structlog.get_logger(__name__)


def count_finished(finished: Sequence[FinishedPrompt]) -> None:
    """Count prompts that have finished, all with the same status."""
    if not finished:
        return
    metrics.finished.labels(finished[0].change).inc(len(finished))
    for kind, field in (("prompt", "prompt_tokens"), ("completion", "completion_tokens")):
        if total := sum(getattr(prompt.answer, field) or 0 for prompt in finished):
            metrics.tokens.labels(kind).inc(total)


def count_lost_claim(prompt_id: int) -> None:
    """Count and log a claim that no longer held when its answer was there."""
    metrics.claims_lost.inc()
    log.info("claim lost", prompt_id=prompt_id)


def count_failed(error: Exception) -> None:
    """Count an attempt that failed, by its reason."""
    metrics.attempts_failed.labels(_reason(error)).inc()


def _reason(error: Exception) -> str:
    if isinstance(error, SoftTimeLimitExceeded):
        return "timeout"
    if isinstance(error, ProviderUnavailableError):
        return "unavailable"
    return "provider" if isinstance(error, ProviderError) else "other"
