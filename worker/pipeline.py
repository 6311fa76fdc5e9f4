"""From a claim to an announcement: the way of prompts through a worker.

claim → embed → look up what was asked before → generate → complete → announce

No transaction is open meanwhile, and the leases are renewed. What a task carries goes this way together: one statement
claims, one completes, one round trip announces. A prompt that fails does so alone. Embedding comes first, so that no
answer is thrown away because its prompt cannot be embedded.
"""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import groupby

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from structlog.contextvars import bound_contextvars

from shared.db.engine import Sessions, is_unavailable
from shared.db.models import CacheUse
from shared.errors import ProviderError, ProviderUnavailableError
from shared.messaging import announcements
from shared.messaging.announcements import Announcer
from shared.messaging.partial_text import PartialText
from shared.messaging.queue import Queue
from shared.prompts import claims
from shared.prompts.claims import Answer, Claim, Response
from shared.prompts.feed import FinishedPrompt
from shared.providers import Embedders, Exchange, GenerationRequest, Generator, Usage, embed
from shared.search.store import VectorStore
from shared.search.vector_log import LogRow
from shared.telemetry import metrics, tracing
from worker import attempt_metrics
from worker.deltas import Deltas
from worker.leases import Leases
from worker.provider_backoff import ProviderBackoff
from worker.sanitize import public_message, storable, storable_usage
from worker.semantic_cache import EmbeddedPrompt, SemanticCache

log = structlog.get_logger(__name__)

MAX_BACKOFF = timedelta(minutes=5)

Answered = tuple[EmbeddedPrompt, Response]


class ClaimLostError(Exception):
    """The prompt was cancelled, deleted or handed to another worker while this one worked on it."""


@dataclass(frozen=True)
class Pipeline:
    """Answers prompts.

    `backoff` is the pause after a first failed attempt; it doubles with each, up to MAX_BACKOFF. For so long after it
    was queued, refusals of a provider that takes nothing do not count as attempts: `patience`. A task that takes longer
    than `time_limit` is interrupted.
    """

    sessions: Sessions
    autocommit_engine: Engine  #: for what one statement does
    generator: Generator
    embedders: Embedders
    store: VectorStore
    memory: SemanticCache
    announcer: Announcer
    running: PartialText
    queue: Queue
    leases: Leases
    pause: ProviderBackoff
    lease: timedelta
    backoff: timedelta
    patience: timedelta
    time_limit: timedelta

    def process(self, prompt_ids: Sequence[int]) -> None:
        """Answers those of the prompts that wait for a worker, as many as the generator takes; puts back the others."""
        max_batch_size = self.generator.max_batch_size
        for start in range(max_batch_size, len(prompt_ids), max_batch_size):
            self.queue.enqueue(prompt_ids[start : start + max_batch_size])
        begun = time.monotonic()
        claims = self._claim(prompt_ids[:max_batch_size])
        metrics.attempts.inc(len(claims))
        try:
            with self.leases.hold(claims):
                self._complete(self._answered(self._embedded(claims)))
        except (SystemExit, SoftTimeLimitExceeded):
            if time.monotonic() - begun < self.time_limit.total_seconds():  # the worker is told to stop
                self._hand_back(claims)
            else:  # a generator that does not let itself be interrupted must not be tried for ever
                self._give_back(claims, SoftTimeLimitExceeded())
            raise

    def _claim(self, prompt_ids: Sequence[int]) -> list[Claim]:
        with tracing.spans("claim", prompts=len(prompt_ids)) as traces, self.autocommit_engine.connect() as connection:
            if self.pause.is_on:
                claims.reschedule_queued(connection, prompt_ids, self.pause.delay, patience=self.patience)
            claimed = claims.claim(connection, prompt_ids, self.lease)
            traces += _traces(claimed)
        return claimed

    def _embedded(self, claims: Sequence[Claim]) -> list[EmbeddedPrompt]:
        """Those that could be embedded; the others have been dealt with."""
        try:
            return self._with_vectors(claims)
        except Exception as error:
            if len(claims) == 1 or not _may_be_ones_fault(error):
                self._give_back(claims, error)
                return []
        return [embedded for claim in claims for embedded in self._embedded([claim])]

    def _with_vectors(self, claims: Sequence[Claim]) -> list[EmbeddedPrompt]:
        """The prompts with their vectors, in the order of their embedders' names."""
        resolve = [(self.embedders.resolve(claim.embedder), claim) for claim in claims]
        embedded = []
        for _, group in groupby(sorted(resolve, key=lambda each: each[0].name), key=lambda each: each[0].name):
            together = list(group)
            embedder = together[0][0]
            texts = [claim.prompt_text for _, claim in together]
            with tracing.spans("embed", *_traces(claim for _, claim in together), embedder=embedder.name):
                vectors = embed(embedder, texts).astype("<f4")
            embedded += [
                EmbeddedPrompt(claim, embedder, vector) for (_, claim), vector in zip(together, vectors, strict=True)
            ]
        return embedded

    def _answered(self, prompts: Sequence[EmbeddedPrompt]) -> list[Answered]:
        """The responses of those for which there was one; the others have been dealt with."""
        found = []
        for number, prompt in enumerate(prompts, 1):
            try:
                with _logged_with(prompt.claim):
                    found.append((prompt, self._answer(prompt)))
            except ClaimLostError:
                attempt_metrics.lost(prompt.claim.id)
            except SoftTimeLimitExceeded as error:  # whose turn it was has taken the time of all
                self._give_back([prompt.claim], error)
                self._hand_back([each.claim for each in prompts[number:]])
                break
            except ProviderUnavailableError as error:
                self._give_back([each.claim for each in prompts[number - 1 :]], error)
                break
            except Exception as error:
                self._give_back([prompt.claim], error)
        return found

    def _answer(self, prompt: EmbeddedPrompt) -> Response:
        claim = prompt.claim
        if claim.cache == CacheUse.ALLOWED:
            response = self._cached(prompt)
            metrics.cache_uses.labels("miss" if response is None else "hit").inc()
            if response is not None:
                return response
        elif claim.cache is not None:
            metrics.cache_uses.labels(claim.cache).inc()
        history = self.memory.history(prompt) if claim.history else []
        with tracing.spans("generate", claim.traceparent, generator=self.generator.name, attempt=claim.attempt):
            return self._generate(claim, history)

    def _cached(self, prompt: EmbeddedPrompt) -> Response | None:
        """A cache that fails is a miss."""
        try:
            return self.memory.cached(prompt, self.generator.name)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            log.warning("cache not looked up", error=type(error).__name__)
            return None

    def _generate(self, claim: Claim, history: Sequence[Exchange]) -> Response:
        texts: list[str] = []
        usage, begun = Usage(), time.perf_counter()
        parts = self.generator.generate(GenerationRequest(claim.prompt_text, history, claim.idempotency_key))
        try:
            with Deltas(self.running, claim) if self.generator.max_batch_size == 1 else nullcontext() as deltas:
                for part in parts:
                    if not self.leases.is_held(claim):
                        raise ClaimLostError
                    if isinstance(part, Usage):
                        usage = storable_usage(part)
                        continue
                    if not texts:
                        metrics.first_chunks.observe(time.perf_counter() - begun)
                    texts.append(storable(part))
                    if deltas is not None:
                        deltas.add(texts[-1])
        finally:
            if hasattr(parts, "close"):  # lets go of the provider at once
                parts.close()
        metrics.generations.observe(time.perf_counter() - begun)
        self.pause.end()
        return Response("".join(texts), self.generator.name, usage)

    def _complete(self, answered: Sequence[Answered]) -> None:
        """Completes and announces; together if that can be done, else each by itself."""
        if not answered:
            return
        try:
            self._store(answered)
        except Exception as error:
            if isinstance(error, SQLAlchemyError) and (len(answered) == 1 or is_unavailable(error)):
                log.exception("attempts cut off by the database; the reaper will hand the prompts out again")
            elif len(answered) == 1:
                self._give_back([answered[0][0].claim], error)
            else:
                for each in answered:
                    self._complete([each])

    def _store(self, answered: Sequence[Answered]) -> None:
        """Completes and announces; those whose users have another embedder by now, in another round."""
        while answered:
            answers = [Answer(p.claim, response, p.embedder.name, p.vector.tobytes()) for p, response in answered]
            traces = _traces(answer.claim for answer in answers)
            with (
                tracing.spans("complete", *traces, prompts=len(answers)),
                self.autocommit_engine.connect() as connection,
            ):
                ended = claims.complete(connection, answers)
            names = ended.other_embedders
            self._announce(ended.endings, {a.claim.id: a for a in answers if a.claim.id not in names})
            attempt_metrics.ended(ended.endings)
            responses = {prompt.claim.id: response for prompt, response in answered}
            others = [replace(a.claim, embedder=names[a.claim.id]) for a in answers if a.claim.id in names]
            answered = [(prompt, responses[prompt.claim.id]) for prompt in self._with_vectors(others)]

    def _announce(self, endings: Sequence[FinishedPrompt], answers: dict[int, Answer]) -> None:
        claims = [answers[ending.prompt_id].claim for ending in endings]
        with tracing.spans("announce", *_traces(claims)):
            self._tell(endings, claims)
        rows: dict[int, list[LogRow]] = {}
        for ending in endings:
            seconds = round((ending.at - ending.created_at).total_seconds(), 3)
            log.info(
                "completed",
                seq=ending.seq,
                prompt_id=ending.prompt_id,
                request_id=ending.request_id,
                attempt=ending.attempt,
                seconds=seconds,
            )
            row = LogRow(ending.seq, ending.prompt_id, answers.pop(ending.prompt_id).vector)
            rows.setdefault(ending.user_id, []).append(row)
        for prompt_id in answers:
            attempt_metrics.lost(prompt_id)
        for user_id, of_user in rows.items():
            self.store.apply(user_id, of_user)

    def _tell(self, endings: Sequence[FinishedPrompt], claims: Sequence[Claim]) -> None:
        together = zip(endings, claims, strict=True)
        self.announcer.announce(
            *((e.user_id, announcements.from_finished(e, claim.traceparent)) for e, claim in together)
        )

    def _give_back(self, claims: Sequence[Claim], error: Exception) -> None:
        """Ends failed attempts: another one follows after a pause, unless it was the last or none would help."""
        if isinstance(error, ProviderUnavailableError):
            self.pause.begin(error.retry_after)
            metrics.provider_pauses.inc()
        for claim in claims:
            self._end_attempt(claim, error)

    def _end_attempt(self, claim: Claim, error: Exception) -> None:
        attempt_metrics.failed(error)
        with _logged_with(claim):
            log.warning("attempt failed", error=type(error).__name__, exc_info=not isinstance(error, ProviderError))
            try:
                with self.sessions.begin() as session:
                    ending = self._fail_or_postpone(session, claim, error)
            except SQLAlchemyError:
                log.exception("attempt cut off by the database; the reaper will hand the prompt out again")
                return
        if ending is not None:
            attempt_metrics.ended([ending])
            self._tell([ending], [claim])

    def _fail_or_postpone(self, session: Session, claim: Claim, error: Exception) -> FinishedPrompt | None:
        if isinstance(error, ProviderUnavailableError) and claim.age < self.patience:
            claims.wait_for_provider(session, claim, self.pause.delay, patience=self.patience)
        elif claim.final or (isinstance(error, ProviderError) and not error.retryable):
            return claims.fail(session, claim, public_message(error))
        else:
            # Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), so that a burst does not return
            # as one.
            ceiling = min(self.backoff * 2 ** (claim.attempt - 1), MAX_BACKOFF)
            claims.postpone(session, claim, ceiling * random.uniform(0.5, 1))  # noqa: S311  # nosec B311
        return None

    def _hand_back(self, claim: Sequence[Claim]) -> None:
        try:
            with self.sessions.begin() as session:
                claims.release(session, claim)
        except SQLAlchemyError:
            log.exception("claims not handed back; the reaper will hand the prompts out again")


def _may_be_ones_fault(error: Exception) -> bool:
    """Whether one of several prompts may have made their embedder fail, so that the others are worth another call."""
    if isinstance(error, ProviderError):
        return not error.retryable
    return not isinstance(error, SoftTimeLimitExceeded)


def _traces(claims: Iterable[Claim]) -> list[str | None]:
    return [claim.traceparent for claim in claims]


@contextmanager
def _logged_with(claim: Claim) -> Iterator[None]:
    """What is logged meanwhile tells the prompt."""
    with bound_contextvars(request_id=claim.request_id, prompt_id=claim.id, attempt=claim.attempt):
        yield
