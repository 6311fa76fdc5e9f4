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

from shared import attempts, events
from shared.attempts import Answer, Claim, Response
from shared.database import Sessions, is_away
from shared.errors import ProviderError, ProviderUnavailableError
from shared.events import Announcer
from shared.feed import Ending
from shared.models import CacheUse
from shared.providers import Embedders, Exchange, GenerationRequest, Generator, Usage, embed
from shared.queue import Queue
from shared.running_text import RunningText
from shared.search.log import LogRow
from shared.search.store import VectorStore
from shared.telemetry import metrics, tracing
from worker import counting
from worker.deltas import Deltas
from worker.leases import Leases
from worker.memory import Embedded, Memory
from worker.provider_pause import ProviderPause
from worker.storable import public_message, storable, storable_usage

log = structlog.get_logger(__name__)

MAX_BACKOFF = timedelta(minutes=5)

Answered = tuple[Embedded, Response]


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
    autocommit: Engine  #: for what one statement does
    generator: Generator
    embedders: Embedders
    store: VectorStore
    memory: Memory
    announcer: Announcer
    running: RunningText
    queue: Queue
    leases: Leases
    pause: ProviderPause
    lease: timedelta
    backoff: timedelta
    patience: timedelta
    time_limit: timedelta

    def process(self, prompt_ids: Sequence[int]) -> None:
        """Answers those of the prompts that wait for a worker, as many as the generator takes; puts back the others."""
        at_once = self.generator.at_once
        for start in range(at_once, len(prompt_ids), at_once):
            self.queue.enqueue(prompt_ids[start : start + at_once])
        begun = time.monotonic()
        claims = self._claim(prompt_ids[:at_once])
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
        with tracing.spans("claim", prompts=len(prompt_ids)) as traces, self.autocommit.connect() as connection:
            if self.pause.is_on:
                attempts.put_off(connection, prompt_ids, self.pause.delay, patience=self.patience)
            claims = attempts.claim(connection, prompt_ids, self.lease)
            traces += _traces(claims)
        return claims

    def _embedded(self, claims: Sequence[Claim]) -> list[Embedded]:
        """Those that could be embedded; the others have been dealt with."""
        try:
            return self._with_vectors(claims)
        except Exception as error:
            if len(claims) == 1 or not _may_be_ones_fault(error):
                self._give_back(claims, error)
                return []
        return [embedded for held in claims for embedded in self._embedded([held])]

    def _with_vectors(self, claims: Sequence[Claim]) -> list[Embedded]:
        """The prompts with their vectors, in the order of their embedders' names."""
        usable = [(self.embedders.usable(held.embedder), held) for held in claims]
        embedded = []
        for _, group in groupby(sorted(usable, key=lambda each: each[0].name), key=lambda each: each[0].name):
            together = list(group)
            embedder = together[0][0]
            texts = [held.prompt_text for _, held in together]
            with tracing.spans("embed", *_traces(held for _, held in together), embedder=embedder.name):
                vectors = embed(embedder, texts).astype("<f4")
            embedded += [Embedded(held, embedder, vector) for (_, held), vector in zip(together, vectors, strict=True)]
        return embedded

    def _answered(self, prompts: Sequence[Embedded]) -> list[Answered]:
        """The responses of those for which there was one; the others have been dealt with."""
        found = []
        for number, prompt in enumerate(prompts, 1):
            try:
                with _logged_with(prompt.held):
                    found.append((prompt, self._answer(prompt)))
            except ClaimLostError:
                counting.lost(prompt.held.id)
            except SoftTimeLimitExceeded as error:  # whose turn it was has taken the time of all
                self._give_back([prompt.held], error)
                self._hand_back([each.held for each in prompts[number:]])
                break
            except ProviderUnavailableError as error:
                self._give_back([each.held for each in prompts[number - 1 :]], error)
                break
            except Exception as error:
                self._give_back([prompt.held], error)
        return found

    def _answer(self, prompt: Embedded) -> Response:
        held = prompt.held
        if held.cache == CacheUse.ALLOWED:
            response = self._cached(prompt)
            metrics.cache_uses.labels("miss" if response is None else "hit").inc()
            if response is not None:
                return response
        elif held.cache is not None:
            metrics.cache_uses.labels(held.cache).inc()
        history = self.memory.history(prompt) if held.history else []
        with tracing.spans("generate", held.traceparent, generator=self.generator.name, attempt=held.attempt):
            return self._generate(held, history)

    def _cached(self, prompt: Embedded) -> Response | None:
        """A cache that fails is a miss."""
        try:
            return self.memory.cached(prompt, self.generator.name)
        except SoftTimeLimitExceeded:
            raise
        except Exception as error:
            log.warning("cache not looked up", error=type(error).__name__)
            return None

    def _generate(self, held: Claim, history: Sequence[Exchange]) -> Response:
        texts: list[str] = []
        usage, begun = Usage(), time.perf_counter()
        parts = self.generator.generate(GenerationRequest(held.prompt_text, history, held.idempotency_key))
        try:
            with Deltas(self.running, held) if self.generator.at_once == 1 else nullcontext() as deltas:
                for part in parts:
                    if not self.leases.is_held(held):
                        raise ClaimLostError
                    if isinstance(part, Usage):
                        usage = storable_usage(part)
                        continue
                    if not texts:
                        metrics.first_chunks.add(time.perf_counter() - begun)
                    texts.append(storable(part))
                    if deltas is not None:
                        deltas.add(texts[-1])
        finally:
            if hasattr(parts, "close"):  # lets go of the provider at once
                parts.close()
        metrics.generations.add(time.perf_counter() - begun)
        self.pause.end()
        return Response("".join(texts), self.generator.name, usage)

    def _complete(self, answered: Sequence[Answered]) -> None:
        """Completes and announces; together if that can be done, else each by itself."""
        if not answered:
            return
        try:
            self._store(answered)
        except Exception as error:
            if isinstance(error, SQLAlchemyError) and (len(answered) == 1 or is_away(error)):
                log.exception("attempts cut off by the database; the reaper will hand the prompts out again")
            elif len(answered) == 1:
                self._give_back([answered[0][0].held], error)
            else:
                for each in answered:
                    self._complete([each])

    def _store(self, answered: Sequence[Answered]) -> None:
        """Completes and announces; those whose users have another embedder by now, in another round."""
        while answered:
            answers = [Answer(p.held, response, p.embedder.name, p.vector.tobytes()) for p, response in answered]
            traces = _traces(answer.held for answer in answers)
            with tracing.spans("complete", *traces, prompts=len(answers)), self.autocommit.connect() as connection:
                ended = attempts.complete(connection, answers)
            names = ended.other_embedders
            self._announce(ended.endings, {a.held.id: a for a in answers if a.held.id not in names})
            counting.ended(ended.endings)
            responses = {prompt.held.id: response for prompt, response in answered}
            others = [replace(a.held, embedder=names[a.held.id]) for a in answers if a.held.id in names]
            answered = [(prompt, responses[prompt.held.id]) for prompt in self._with_vectors(others)]

    def _announce(self, endings: Sequence[Ending], answers: dict[int, Answer]) -> None:
        claims = [answers[ending.prompt_id].held for ending in endings]
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
            counting.lost(prompt_id)
        for user_id, of_user in rows.items():
            self.store.apply(user_id, of_user)

    def _tell(self, endings: Sequence[Ending], claims: Sequence[Claim]) -> None:
        together = zip(endings, claims, strict=True)
        self.announcer.announce(*((e.user_id, events.of_ending(e, held.traceparent)) for e, held in together))

    def _give_back(self, claims: Sequence[Claim], error: Exception) -> None:
        """Ends failed attempts: another one follows after a pause, unless it was the last or none would help."""
        if isinstance(error, ProviderUnavailableError):
            self.pause.begin(error.retry_after)
            metrics.provider_pauses.inc()
        for held in claims:
            self._end_attempt(held, error)

    def _end_attempt(self, held: Claim, error: Exception) -> None:
        counting.failed(error)
        with _logged_with(held):
            log.warning("attempt failed", error=type(error).__name__, exc_info=not isinstance(error, ProviderError))
            try:
                with self.sessions.begin() as session:
                    ending = self._fail_or_postpone(session, held, error)
            except SQLAlchemyError:
                log.exception("attempt cut off by the database; the reaper will hand the prompt out again")
                return
        if ending is not None:
            counting.ended([ending])
            self._tell([ending], [held])

    def _fail_or_postpone(self, session: Session, held: Claim, error: Exception) -> Ending | None:
        if isinstance(error, ProviderUnavailableError) and held.age < self.patience:
            attempts.wait_for_provider(session, held, self.pause.delay, patience=self.patience)
        elif held.final or (isinstance(error, ProviderError) and not error.retryable):
            return attempts.fail(session, held, public_message(error))
        else:
            # Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), so that a burst does not return
            # as one.
            ceiling = min(self.backoff * 2 ** (held.attempt - 1), MAX_BACKOFF)
            attempts.postpone(session, held, ceiling * random.uniform(0.5, 1))  # noqa: S311  # nosec B311
        return None

    def _hand_back(self, claims: Sequence[Claim]) -> None:
        try:
            with self.sessions.begin() as session:
                attempts.hand_back(session, claims)
        except SQLAlchemyError:
            log.exception("claims not handed back; the reaper will hand the prompts out again")


def _may_be_ones_fault(error: Exception) -> bool:
    """Whether one of several prompts may have made their embedder fail, so that the others are worth another call."""
    if isinstance(error, ProviderError):
        return not error.retryable
    return not isinstance(error, SoftTimeLimitExceeded)


def _traces(claims: Iterable[Claim]) -> list[str | None]:
    return [held.traceparent for held in claims]


@contextmanager
def _logged_with(held: Claim) -> Iterator[None]:
    """What is logged meanwhile tells the prompt."""
    with bound_contextvars(request_id=held.request_id, prompt_id=held.id, attempt=held.attempt):
        yield
