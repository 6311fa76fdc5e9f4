"""Answering one prompt: from an earlier answer, or by the generator."""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from shared.db.models import CacheUse
from shared.errors import ProviderError
from shared.messaging.partial_text import PartialText
from shared.prompts.answer import Answer, FinishReason
from shared.prompts.claims import Claim
from shared.providers import Exchange, GenerationRequest, Generator, Usage
from shared.telemetry import metrics, tracing
from worker.deltas import Deltas
from worker.embedding import EmbeddedPrompt
from worker.generator_guard import read_parts
from worker.leases import Leases
from worker.provider_status import ProviderStatus
from worker.sanitize import storable, storable_usage
from worker.semantic_cache import SemanticCache

log = structlog.get_logger(__name__)


class ClaimLostError(Exception):
    """The prompt was cancelled, deleted or claimed by another worker while this one worked on it."""


class AnswerTooLongError(ProviderError):
    """The answer is longer than MAX_ANSWER_BYTES. Another attempt would be as long."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The answer has more than {max_bytes} bytes (MAX_ANSWER_BYTES).", retryable=False)


@dataclass(frozen=True)
class Generation:
    """Answers claimed prompts, one at a time.

    Args:
        max_bytes: The longest answer, in bytes of UTF-8.
    """

    generator: Generator
    semantic_cache: SemanticCache
    partial_text: PartialText
    leases: Leases
    provider_status: ProviderStatus
    max_bytes: int

    def answer(self, prompt: EmbeddedPrompt) -> Answer:
        """The prompt's answer.

        Raises:
            ClaimLostError: the claim no longer holds.
            ProviderError: the generator failed; it may raise any other exception, too.
        """
        claim = prompt.claim
        if claim.cache == CacheUse.ALLOWED:
            cached = self._look_up(prompt)
            metrics.cache_uses.labels("miss" if cached is None else "hit").inc()
            if cached is not None:
                self.provider_status.record_inconclusive(claim)
                return cached
        elif claim.cache is not None:
            metrics.cache_uses.labels(claim.cache).inc()
        history = self.semantic_cache.history(prompt) if claim.history else []
        with tracing.spans("generate", claim.traceparent, generator=self.generator.name, attempt=claim.attempt):
            return self._generate(claim, history)

    def _look_up(self, prompt: EmbeddedPrompt) -> Answer | None:
        """The cached answer, if there is one. A cache that fails is a miss."""
        try:
            return self.semantic_cache.cached(prompt, self.generator.name)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            log.warning("cache lookup failed", error=type(error).__name__)
            return None

    def _checked(self, part: str, bytes_left: int) -> str:
        """The chunk as it can be stored.

        Raises:
            AnswerTooLongError: it has more bytes than are left.
        """
        # A character has at least one byte: what is much too long is not even copied.
        if len(part) <= bytes_left:
            text = storable(part)
            if len(text.encode()) <= bytes_left:
                return text
        raise AnswerTooLongError(self.max_bytes)

    def _generate(self, claim: Claim, history: Sequence[Exchange]) -> Answer:
        texts: list[str] = []
        bytes_left = self.max_bytes
        usage, started = Usage(), time.perf_counter()
        parts = read_parts(self.generator, GenerationRequest(claim.prompt_text, history, claim.idempotency_key))
        try:
            with Deltas(self.partial_text, claim) if self.generator.max_batch_size == 1 else nullcontext() as deltas:
                for part in parts:
                    if not self.leases.is_held(claim):
                        raise ClaimLostError
                    if isinstance(part, Usage):
                        usage = storable_usage(part)
                        continue
                    if not part:
                        continue
                    if not texts:
                        metrics.first_chunks.observe(time.perf_counter() - started)
                        self.provider_status.record_available(claim)
                    text = self._checked(part, bytes_left)
                    bytes_left -= len(text.encode())
                    texts.append(text)
                    if deltas is not None:
                        deltas.add(text)
        finally:
            parts.close()
        if not texts:
            self.provider_status.record_available(claim)
            raise _no_text(usage.finish_reason)
        metrics.generations.observe(time.perf_counter() - started)
        return Answer("".join(texts), self.generator.name, *usage)


def _no_text(finish_reason: str | None) -> ProviderError:
    """The error of an answer without any text."""
    if finish_reason == FinishReason.CONTENT_FILTER:
        return ProviderError("The provider's content filter blocked the answer.", retryable=False)
    if finish_reason == FinishReason.TOOL_CALLS:
        return ProviderError("The model returned no text, only calls of tools.")
    if finish_reason == FinishReason.LENGTH:
        return ProviderError("The model returned no text before its length limit.")
    return ProviderError("The model returned no text.")
