"""The pipeline: how a worker answers the prompts of a task.

claim → embed (`embedding.py`) → generate (`generation.py`) → complete and announce (`answer_writer.py`)

Each step takes what the one before it returns. A prompt that fails leaves the pipeline alone (`failures.py`).
The prompts of a task are handled together: one statement claims them, one completes them, and one round trip announces
them. No transaction is open meanwhile, and the leases are renewed. Embedding comes first, because the semantic cache
needs the vector. If the embedder fails, the prompt is answered without one, which is added later (`backfill_task.py`).
"""

import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.accounts.metering import FREE, Prices
from shared.db.engine import Sessions, cause
from shared.db.models import Priority
from shared.errors import ProviderUnavailableError
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue
from shared.prompts import claims, scheduling
from shared.prompts.claims import Claim
from shared.providers import Embedders, Generator
from shared.providers.model_request import Capability
from shared.search.store import VectorStore
from shared.telemetry import metrics, tracing
from worker.answer_writer import AnsweredPrompt, AnswerWriter
from worker.deltas import DeltaPublisher
from worker.embedder_pause import EmbedderPause
from worker.embedding import EmbeddedPrompt, embed_claims
from worker.failures import Failures
from worker.generation import Generation
from worker.leases import ClaimLostError, Leases, WorkerStopping
from worker.log_context import log_context
from worker.provider_status import ProviderStatus
from worker.route_slots import RouteSlots
from worker.semantic_cache import SemanticCache

log = structlog.get_logger(__name__)

#: The share of the work that prompts of low priority get at least.
LOW_SHARE = 0.1
#: How many prompts of low priority are claimed at once: others wait until they are answered.
LOW_GROUP = 32


class TaskResult(NamedTuple):
    """The ids of the prompts that a task completed, and of those whose attempt ended otherwise."""

    completed: list[int]
    not_completed: list[int]


@dataclass(frozen=True)
class Pipeline:
    """Answers prompts.

    Args:
        route: The model route whose prompts it answers.
        lease: How long a claim holds without being renewed.
        grace, retry_backoff, provider_patience: See `Failures`.
        time_limit: How long a task may take before it is interrupted.
        running_limit: USER_RUNNING_LIMIT.
        ceiling: The route's `concurrency`, or OPENAI_CONCURRENCY.
        max_answer_bytes: A prompt whose answer has more bytes of UTF-8 fails.
        prices: Those of the route.
    """

    sessions: Sessions
    autocommit_engine: Engine  #: for single statements
    generator: Generator
    embedders: Embedders
    embedder_pause: EmbedderPause
    store: VectorStore
    semantic_cache: SemanticCache
    announcer: Announcer
    deltas: DeltaPublisher
    queue: Queue
    leases: Leases
    provider_status: ProviderStatus
    route: str
    lease: timedelta
    grace: timedelta
    retry_backoff: timedelta
    provider_patience: timedelta
    time_limit: timedelta
    max_answer_bytes: int
    running_limit: int | None = None
    ceiling: int | None = None
    prices: Prices = FREE
    capabilities: frozenset[Capability] = frozenset()  #: of the generator

    def process(self, count: int) -> TaskResult:
        """Answer up to `count` prompts, as many as the generator takes at once, and wake up workers for the rest.

        Raises:
            WorkerStopping, SoftTimeLimitExceeded: the task was interrupted; its prompts are released or rescheduled.
        """
        if self.leases.is_stopping:
            self.queue.wake(self.route, count)
            return TaskResult([], [])
        started = time.monotonic()
        held = self._claim(count)
        completed: list[int] = []
        metrics.attempts.inc(len(held))
        try:
            with self.leases.hold(held):
                for members in _by_priority(held):
                    completed += self._answer_writer.complete(self._generate(self._embed(members)))
        except (WorkerStopping, SoftTimeLimitExceeded):
            if time.monotonic() - started < self.time_limit.total_seconds():  # the worker is stopping
                self._failures.release(held)
            else:  # a generator that cannot be interrupted must not be tried for ever
                self._failures.handle(held, SoftTimeLimitExceeded())
            raise
        finally:
            self._grant_next_turns(held)
            if len(completed) < len(held):
                self._slots.fill()
        ended = set(completed)
        return TaskResult(completed, [claim.id for claim in held if claim.id not in ended])

    @property
    def _failures(self) -> Failures:
        return Failures(
            self.sessions,
            self.announcer,
            self.queue,
            self.provider_status,
            self.route,
            self.grace,
            self.retry_backoff,
            self.provider_patience,
            self.time_limit,
        )

    @property
    def _slots(self) -> RouteSlots:
        return RouteSlots(self.autocommit_engine, self.queue, self.route, self.ceiling)

    @property
    def _answer_writer(self) -> AnswerWriter:
        return AnswerWriter(
            self.autocommit_engine,
            self.announcer,
            self.store,
            self.leases,
            self.lease,
            self._slots,
            self._failures,
            self._embed,
        )

    def _claim(self, count: int) -> list[Claim]:
        """Claim the next prompts, and wake up workers for those that this task does not take.

        If it found fewer than it would have taken, the queue is empty, and it wakes up no worker.
        """
        size = min(count, self.generator.max_batch_size)
        with (
            tracing.spans("claim", prompts=size) as traces,
            self.provider_status.slots_lock,
            self.autocommit_engine.connect() as connection,
        ):
            claimed = claims.claim(
                connection,
                self.route,
                size,
                self.lease,
                low_share=_low_share(size),
                low_limit=LOW_GROUP,
                low_first=_low_share(1) > 0,
                ceiling=self.ceiling,
                prices=self.prices,
            )
            traces += _traces(claimed.claims)
        found = len(claimed.claims) + claimed.passed_over
        low = claimed.passed_over + sum(claim.priority == Priority.LOW for claim in claimed.claims)
        is_more = (found == size or low >= LOW_GROUP) and not claimed.is_probe
        remaining = count - len(claimed.claims) if is_more else claimed.passed_over
        self._wake_workers(self._slots.count_to_wake(claimed, remaining), found)
        return claimed.claims

    def _wake_workers(self, count: int, group: int) -> None:
        """Wake up workers for this many prompts: by two messages for about half of them each, if one task cannot take
        all. So a large number reaches all workers in few steps, in groups that are not smaller than necessary.
        """
        half = group * round(count / 2 / group) if count > group > 0 else 0
        for part in (half, count - half):
            self.queue.wake(self.route, part)

    def _grant_next_turns(self, held: Sequence[Claim]) -> None:
        """With USER_RUNNING_LIMIT: give turns to the users' next prompts, instead of those that have ended."""
        if self.running_limit is not None:
            self.grant_turns(sorted({claim.user_id for claim in held}))

    def grant_turns(self, user_ids: Sequence[int]) -> None:
        """Give turns to the waiting prompts of these users, and wake up workers for them."""
        if not user_ids:
            return
        try:
            with self.sessions.begin() as session:
                granted = scheduling.grant_turns(session, user_ids, grace=self.grace, running_limit=self.running_limit)
        except SQLAlchemyError as error:
            log.warning("turns not granted, the reaper will grant them", error=cause(error))
            return
        for route, count in granted.items():
            self.queue.wake(route, count)

    def grant_missing_turns(self, prompt_ids: Sequence[int]) -> None:
        """Give turns to prompts that the release before the fair queue has stored without."""
        with self.autocommit_engine.connect() as connection:
            user_ids = scheduling.users_without_turn(connection, prompt_ids)
        self.grant_turns(user_ids)

    def _embed(self, held: Sequence[Claim]) -> list[EmbeddedPrompt]:
        """The prompts with their vectors, as far as the embedder returns them."""
        if len(held) != 1:
            return embed_claims(self.embedders, self.embedder_pause, held)
        (claim,) = held
        try:
            with self.leases.running(claim):
                return embed_claims(self.embedders, self.embedder_pause, held)
        except ClaimLostError:  # `_generate` notices it, too, and counts it
            return [EmbeddedPrompt(claim, self.embedders.resolve(claim.embedder), None)]

    def _generate(self, prompts: Sequence[EmbeddedPrompt]) -> list[AnsweredPrompt]:
        """Those of the prompts that were answered."""
        generation = Generation(
            self.generator,
            self.capabilities,
            self.semantic_cache,
            self.deltas,
            self.leases,
            self.provider_status,
            self.max_answer_bytes,
        )
        answered: list[AnsweredPrompt] = []
        for index, prompt in enumerate(prompts):
            remaining = [each.claim for each in prompts[index + 1 :]]
            try:
                with log_context(prompt.claim):
                    answered.append((prompt, generation.answer(prompt)))
            except ClaimLostError:
                self._failures.record_lost(prompt.claim)
                self.provider_status.record_inconclusive(prompt.claim)
            except SoftTimeLimitExceeded as error:  # this prompt has used up the time of all
                self._failures.handle([prompt.claim], error)
                self._failures.release(remaining)
                break
            except ProviderUnavailableError as error:
                self._failures.handle([prompt.claim, *remaining], error)
                break
            except Exception as error:
                self._failures.handle([prompt.claim], error, of_generator=True)
        return answered


def _low_share(size: int) -> int:
    """LOW_SHARE of `size`, rounded up or down by chance, so that it holds on average for any size."""
    return int(size * LOW_SHARE + random.random())  # noqa: S311  # nosec B311


def _by_priority(held: Sequence[Claim]) -> Iterator[list[Claim]]:
    """The prompts of each priority, those of default priority first: they do not wait for the others' answers."""
    ordered = sorted(held, key=attrgetter("priority"))
    return (list(members) for _, members in groupby(ordered, key=attrgetter("priority")))


def _traces(held: Iterable[Claim]) -> list[str | None]:
    return [claim.traceparent for claim in held]
