"""The task that embeds prompts which were completed without a vector. The reaper requests it while any is due."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import groupby

import structlog

from shared.db.engine import Sessions
from shared.providers import Embedder, Embedders
from shared.search import missing_vectors
from shared.search.late_embedding import EmbedderOutageError, LateEmbedding
from shared.search.missing_vectors import MissingVector
from worker.embedder_pause import EmbedderPause

log = structlog.get_logger(__name__)

#: How many prompts are embedded together.
BATCH = 64
#: How long one task works; then it requests another.
SLICE_SECONDS = 20.0
#: When the prompts of a worker that died are due again.
LEASE = timedelta(minutes=10)
#: When prompts are due again whose embedder did not work.
OUTAGE_DELAY = timedelta(seconds=5)


class MissingVectors:
    """Adds the vectors that are due.

    Args:
        pause: This process's; while it lasts, the task does nothing.
        request: Has a worker do the next slice.
    """

    def __init__(
        self,
        sessions: Sessions,
        embedders: Embedders,
        late_embedding: LateEmbedding,
        pause: EmbedderPause,
        request: Callable[[], object],
    ) -> None:
        self._sessions = sessions
        self._embedders = embedders
        self._late_embedding = late_embedding
        self._pause = pause
        self._request = request

    def embed_due(self) -> int:
        """Embed what is due, until an embedder does not work. Returns how many vectors were added."""
        deadline, added = time.monotonic() + SLICE_SECONDS, 0
        while time.monotonic() < deadline:
            with self._sessions.begin() as session:
                due = missing_vectors.claim_due(session, BATCH, LEASE)
            batch_added, left = self._embed(due)
            added += batch_added
            if left or not due:
                break
        else:
            self._request()
        if added:
            log.info("missing vectors added", vectors=added)
        return added

    def _embed(self, due: Sequence[MissingVector]) -> tuple[int, list[int]]:
        """Embed these prompts. Returns how many vectors were added, and the prompts whose embedders do not work."""
        added, left = 0, [each.prompt_id for each in due]
        by_name = groupby(sorted(due, key=self._embedder_name), key=self._embedder_name)
        try:
            for _, group in by_name:
                members = list(group)
                stored = self._embed_with(self._embedders.resolve(members[0].embedder), members)
                if stored is not None:
                    added += stored
                    embedded = {each.prompt_id for each in members}
                    left = [prompt_id for prompt_id in left if prompt_id not in embedded]
        finally:
            if left:  # also if this process must stop
                with self._sessions.begin() as session:
                    missing_vectors.postpone(session, left, OUTAGE_DELAY)
        return added, left

    def _embed_with(self, embedder: Embedder, missing: Sequence[MissingVector]) -> int | None:
        """Embed these prompts. Returns how many vectors were added; None if the embedder does not work."""
        started_at = self._pause.try_call(embedder)
        if started_at is None:
            return None
        try:
            added = self._late_embedding.embed(embedder, missing)
        except EmbedderOutageError as error:
            self._pause.record_failure(embedder, started_at, error.cause)
            return None
        self._pause.record_success(embedder)
        return added

    def _embedder_name(self, missing: MissingVector) -> str:
        return self._embedders.resolve(missing.embedder).name
