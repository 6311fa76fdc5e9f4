"""From a claim to an announcement: the way of prompts through a worker.

claim → generate and embed (no transaction is open, the leases are renewed) → complete → index → announce

What a task carries goes this way together: one transaction claims, one completes, one round trip announces. A prompt
that fails does so alone.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from shared.attempts import Answer, Claim
from shared.database import Sessions, is_away
from shared.errors import ProviderError
from shared.events import Announcer
from shared.feed import Ending
from shared.providers import Embedders, Generator, embed
from shared.queue import Queue
from shared.search.log import LogRow
from shared.search.store import VectorStore
from worker.deltas import Deltas
from worker.leases import Leases

log = structlog.get_logger(__name__)

MAX_BACKOFF = timedelta(minutes=5)
MAX_ERROR_LENGTH = 2_000

Generated = tuple[Claim, str]  #: a claim and its response


class ClaimLostError(Exception):
    """The prompt was cancelled, deleted or handed to another worker while this one worked on it."""


@dataclass(frozen=True)
class Pipeline:
    """Answers prompts.

    `backoff` is the pause after a first failed attempt; it doubles with each, up to MAX_BACKOFF.
    """

    sessions: Sessions
    autocommit: Engine  #: for what one statement does
    generator: Generator
    embedders: Embedders
    store: VectorStore
    announcer: Announcer
    queue: Queue
    leases: Leases
    lease: timedelta
    backoff: timedelta

    def process(self, prompt_ids: Sequence[int]) -> None:
        """Answers those of the prompts that wait for a worker, as many as the generator takes; puts back the others."""
        at_once = self.generator.at_once
        for start in range(at_once, len(prompt_ids), at_once):
            self.queue.enqueue(prompt_ids[start : start + at_once])
        with self.autocommit.connect() as connection:
            claims = attempts.claim(connection, prompt_ids[:at_once], self.lease)
        try:
            with self.leases.hold(claims):
                self._complete(self._generated(claims))
        except (SystemExit, SoftTimeLimitExceeded):  # the worker is told to stop, and its time is up; or the task's is
            self._hand_back(claims)
            raise

    def _generated(self, claims: Sequence[Claim]) -> list[Generated]:
        """The responses of those for which there was one; the others have been dealt with."""
        found = []
        for number, held in enumerate(claims, 1):
            try:
                with _logged_with(held):
                    found.append((held, self._generate(held)))
            except ClaimLostError:
                log.info("claim lost", prompt_id=held.id)
            except SoftTimeLimitExceeded as error:  # whose turn it was has taken the time of all
                self._give_back(held, error)
                self._hand_back(claims[number:])
                break
            except Exception as error:
                self._give_back(held, error)
        return found

    def _generate(self, held: Claim) -> str:
        deltas = Deltas(self.announcer, held)
        chunks = []
        for chunk in self.generator.generate(held.prompt_text):
            if not self.leases.is_held(held):
                raise ClaimLostError
            text = storable(chunk)
            chunks.append(text)
            deltas.add(text)
        deltas.finish()
        return "".join(chunks)

    def _complete(self, generated: Sequence[Generated]) -> None:
        """Embeds, completes and announces; together if that can be done, else each by itself."""
        if not generated:
            return
        try:
            self._store(generated)
        except Exception as error:
            if isinstance(error, SQLAlchemyError) and (len(generated) == 1 or is_away(error)):
                log.exception("attempts cut off by the database; the reaper will hand the prompts out again")
            elif len(generated) == 1:
                self._give_back(generated[0][0], error)
            else:
                for each in generated:
                    self._complete([each])

    def _store(self, generated: Sequence[Generated]) -> None:
        """Completes and announces; those whose users have another embedder by now, in another round."""
        while generated:
            answers = self._embedded(generated)
            with self.autocommit.connect() as connection:
                ended = attempts.complete(connection, answers)
            names = ended.other_embedders
            again = [(replace(held, embedder=names[held.id]), text) for held, text in generated if held.id in names]
            self._announce(ended.endings, {a.held.id: a.vector for a in answers if a.held.id not in names})
            generated = again

    def _embedded(self, generated: Sequence[Generated]) -> list[Answer]:
        """The answers, in the order of their embedders' names."""
        usable = [(self.embedders.usable(held.embedder), held, response) for held, response in generated]
        answers = []
        for _, group in groupby(sorted(usable, key=lambda each: each[0].name), key=lambda each: each[0].name):
            together = list(group)
            embedder = together[0][0]
            vectors = embed(embedder, [held.prompt_text for _, held, _ in together]).astype("<f4")
            answers += [
                Answer(held, response, embedder.name, vector.tobytes())
                for (_, held, response), vector in zip(together, vectors, strict=True)
            ]
        return answers

    def _announce(self, endings: Sequence[Ending], vectors: dict[int, bytes]) -> None:
        self.announcer.announce(*((ending.user_id, events.of_ending(ending)) for ending in endings))
        rows: dict[int, list[LogRow]] = {}
        for ending in endings:
            log.info("completed", seq=ending.seq, prompt_id=ending.prompt_id, request_id=ending.request_id)
            row = LogRow(ending.seq, ending.prompt_id, vectors.pop(ending.prompt_id))
            rows.setdefault(ending.user_id, []).append(row)
        for prompt_id in vectors:
            log.info("claim lost", prompt_id=prompt_id)
        for user_id, of_user in rows.items():
            self.store.apply(user_id, of_user)

    def _give_back(self, held: Claim, error: Exception) -> None:
        """Ends a failed attempt: another one follows after a pause, unless it was the last or none would help."""
        retryable = error.retryable if isinstance(error, ProviderError) else True
        with _logged_with(held):
            log.warning("attempt failed", error=type(error).__name__, exc_info=not isinstance(error, ProviderError))
            try:
                with self.sessions.begin() as session:
                    ending = self._fail_or_postpone(session, held, error, retryable=retryable)
            except SQLAlchemyError:
                log.exception("attempt cut off by the database; the reaper will hand the prompt out again")
                return
        if ending is not None:
            self.announcer.announce((held.user_id, events.of_ending(ending)))

    def _fail_or_postpone(self, session: Session, held: Claim, error: Exception, *, retryable: bool) -> Ending | None:
        if held.final or not retryable:
            return attempts.fail(session, held, _public_message(error))
        # Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), so that a burst does not return as one.
        ceiling = min(self.backoff * 2 ** (held.attempt - 1), MAX_BACKOFF)
        attempts.postpone(session, held, ceiling * random.uniform(0.5, 1))  # noqa: S311  # nosec B311
        return None

    def _hand_back(self, claims: Sequence[Claim]) -> None:
        try:
            with self.sessions.begin() as session:
                attempts.hand_back(session, claims)
        except SQLAlchemyError:
            log.exception("claims not handed back; the reaper will hand the prompts out again")


@contextmanager
def _logged_with(held: Claim) -> Iterator[None]:
    """What is logged meanwhile tells the prompt."""
    with bound_contextvars(request_id=held.request_id, prompt_id=held.id, attempt=held.attempt):
        yield


def storable(text: str) -> str:
    """The text without what PostgreSQL and JSON in UTF-8 cannot hold: NUL characters and lone surrogates."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _public_message(error: Exception) -> str:
    """What the user is told: a provider's own words, else only the kind of failure."""
    if isinstance(error, ProviderError):
        return storable(str(error))[:MAX_ERROR_LENGTH]
    if isinstance(error, SoftTimeLimitExceeded):
        return "The generation took too long."
    return f"The generation failed ({type(error).__name__})."
