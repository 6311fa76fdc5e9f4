"""Answering one prompt: from an earlier answer, or by the generator."""

import time
from collections.abc import Generator as PythonGenerator
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from shared.accounts.metering import Meter
from shared.db.models import CacheUse
from shared.errors import ProviderError
from shared.prompts.answer import Answer
from shared.prompts.claims import Claim
from shared.providers import Exchange, GenerationRequest, Generator, Usage
from shared.providers.interruption import Interruption
from shared.providers.model_request import TEXT_ONLY, Capability, ModelRequest
from shared.telemetry import metrics, tracing
from worker.answer_checks import check_answer, check_capabilities
from worker.deltas import DeltaPublisher
from worker.embedding import EmbeddedPrompt
from worker.generator_guard import read_parts
from worker.leases import Leases
from worker.provider_status import ProviderStatus
from worker.sanitize import storable, storable_usage, tool_call_bytes
from worker.semantic_cache import SemanticCache

log = structlog.get_logger(__name__)


class AnswerTooLongError(ProviderError):
    """The answer is longer than MAX_ANSWER_BYTES. Another attempt would be as long."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"The answer has more than {max_bytes} bytes (MAX_ANSWER_BYTES).", retryable=False)


@dataclass(frozen=True)
class Generation:
    """Answers claimed prompts, one at a time.

    Args:
        capabilities: What the generator can do besides answering a text.
        max_bytes: The longest answer, in bytes of UTF-8: its text and its tool calls.
    """

    generator: Generator
    capabilities: frozenset[Capability]
    semantic_cache: SemanticCache
    deltas: DeltaPublisher
    leases: Leases
    provider_status: ProviderStatus
    max_bytes: int

    def answer(self, prompt: EmbeddedPrompt) -> Answer:
        """The prompt's answer.

        Raises:
            ClaimLostError, SoftTimeLimitExceeded, WorkerStopping: the attempt was interrupted.
            ProviderError: the generator failed, lacks a capability, or its answer is not what the prompt asked for. It
                may raise any other exception, too.
        """
        with self.leases.running(prompt.claim) as interruption:
            return self._answer(prompt, interruption)

    def _answer(self, prompt: EmbeddedPrompt, interruption: Interruption) -> Answer:
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
            return self._generate(claim, history, interruption)

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

    def _generate(self, claim: Claim, history: Sequence[Exchange], interruption: Interruption) -> Answer:
        texts: list[str] = []
        bytes_left = self.max_bytes
        usage, started = Usage(), time.perf_counter()
        asked = TEXT_ONLY
        if claim.request is not None:
            asked = ModelRequest.from_json(claim.request)
            check_capabilities(asked, self.capabilities, self.generator.name)
        request = GenerationRequest(claim.prompt_text, history, claim.idempotency_key, asked)
        with (
            self.deltas.attempt(claim) if self.generator.max_batch_size == 1 else nullcontext() as deltas,
            closing(self._metered(claim.meter, request, interruption)) as parts,
        ):
            for part in parts:
                if isinstance(part, Usage):
                    usage = part
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
                    self.deltas.add(deltas, text)
        if not texts:
            self.provider_status.record_available(claim)
        if tool_call_bytes(usage) > bytes_left:
            raise AnswerTooLongError(self.max_bytes)
        answer = "".join(texts)
        usage = check_answer(answer, usage, asked)
        metrics.generations.observe(time.perf_counter() - started)
        return Answer(answer, self.generator.name, *usage)

    def _metered(
        self, meter: Meter, request: GenerationRequest, interruption: Interruption
    ) -> PythonGenerator[str | Usage, None, None]:
        """Yield what the generator yields, and count what that uses.

        An attempt that fails before the generator has yielded anything used nothing: the provider refused it. One that
        is interrupted may have used the prompt.
        """
        meter.send(request.texts)
        parts, has_begun = read_parts(self.generator, request), False
        try:
            for part in parts:
                has_begun = True
                interruption.check()
                if isinstance(part, Usage):
                    usage = storable_usage(part)
                    meter.receive(tool_call_bytes(usage))
                    meter.report(usage.prompt_tokens, usage.completion_tokens)
                    yield usage
                else:
                    meter.receive(len(part.encode("utf-8", "replace")))
                    yield part
        except Exception as error:
            is_interrupted = interruption.reason is not None or isinstance(error, SoftTimeLimitExceeded)
            if not has_begun and not is_interrupted:
                meter.reset()
            raise
        finally:
            parts.close()
