"""From a claim to an announcement: the way of a prompt through a worker.

claim → generate and embed (no transaction is open, the lease is renewed) → complete → index → announce
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from structlog.contextvars import bound_contextvars

from shared import events, prompts
from shared.database import Sessions
from shared.errors import ProviderError
from shared.events import Announcer
from shared.feed import Ending
from shared.prompts import Claim, EmbedderChangedError
from shared.providers import Embedders, Generator, embed
from shared.search.log import LogRow
from shared.search.store import VectorStore
from worker.deltas import Deltas
from worker.leases import Leases

log = structlog.get_logger(__name__)

MAX_BACKOFF = timedelta(minutes=5)
MAX_ERROR_LENGTH = 2_000


class ClaimLostError(Exception):
    """The prompt was cancelled, deleted or handed to another worker while this one worked on it."""


@dataclass(frozen=True)
class Pipeline:
    """Answers prompts.

    `backoff` is the pause after a first failed attempt; it doubles with each, up to MAX_BACKOFF.
    """

    sessions: Sessions
    generator: Generator
    embedders: Embedders
    store: VectorStore
    announcer: Announcer
    leases: Leases
    lease: timedelta
    backoff: timedelta

    def process(self, prompt_ids: Sequence[int]) -> None:
        """Answers those of the prompts that wait for a worker; each fails alone."""
        with self.sessions.begin() as session:
            claims = prompts.claim(session, prompt_ids, self.lease)
        try:
            with self.leases.hold(claims):
                for held in claims:
                    with bound_contextvars(request_id=held.request_id, prompt_id=held.id, attempt=held.attempt):
                        self._attempt(held)
        except SystemExit:  # the worker is told to stop, and its time is up
            with self.sessions.begin() as session:
                prompts.hand_back(session, claims)
            raise

    def _attempt(self, held: Claim) -> None:
        try:
            self._answer(held)
        except SQLAlchemyError:
            log.exception("attempt cut off by the database; the reaper will hand the prompt out again")

    def _answer(self, held: Claim) -> None:
        try:
            response = self._generate(held)
            completed = self._complete(held, response)
        except ClaimLostError:
            log.info("claim lost")
        except SQLAlchemyError:
            raise
        except Exception as error:
            self._give_back(held, error)
        else:
            self._announce(held, *completed)

    def _generate(self, held: Claim) -> str:
        deltas = Deltas(self.announcer, held)
        chunks = []
        for chunk in self.generator.generate(held.prompt_text):
            if not self.leases.is_held(held):
                raise ClaimLostError
            text = storable(chunk)
            chunks.append(text)
            deltas.add(text)
        deltas.flush()
        return "".join(chunks)

    def _complete(self, held: Claim, response: str) -> tuple[Ending, bytes]:
        """Embeds and completes the prompt. Returns the ending, and the vector as it was stored."""
        while True:
            embedder = self.embedders.usable(held.embedder)
            vector: bytes = embed(embedder, [held.prompt_text])[0].astype("<f4").tobytes()
            try:
                with self.sessions.begin() as session:
                    ending = prompts.complete(session, held, response, embedder=embedder.name, vector=vector)
            except EmbedderChangedError as changed:
                held = replace(held, embedder=changed.name)
                continue
            if ending is None:
                raise ClaimLostError
            return ending, vector

    def _announce(self, held: Claim, ending: Ending, vector: bytes) -> None:
        log.info("completed", seq=ending.entry.seq)
        self.announcer.announce(held.user_id, events.of_ending(ending))
        self.store.apply(held.user_id, LogRow(ending.entry.seq, held.id, vector))

    def _give_back(self, held: Claim, error: Exception) -> None:
        """Ends a failed attempt: another one follows after a pause, unless it was the last or none would help."""
        retryable = error.retryable if isinstance(error, ProviderError) else True
        log.warning("attempt failed", error=type(error).__name__, exc_info=not isinstance(error, ProviderError))
        with self.sessions.begin() as session:
            ending = self._fail_or_postpone(session, held, error, retryable=retryable)
        if ending is not None:
            self.announcer.announce(held.user_id, events.of_ending(ending))

    def _fail_or_postpone(self, session: Session, held: Claim, error: Exception, *, retryable: bool) -> Ending | None:
        if held.final or not retryable:
            return prompts.fail(session, held, _public_message(error))
        # Full jitter (AWS Architecture Blog, "Exponential Backoff And Jitter"), so that a burst does not return as one.
        ceiling = min(self.backoff * 2 ** (held.attempt - 1), MAX_BACKOFF)
        prompts.postpone(session, held, ceiling * random.uniform(0.5, 1))  # noqa: S311  # nosec B311
        return None


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
