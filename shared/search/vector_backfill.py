"""Backfilling the vectors of prompts that were completed without one: in a worker's task, and before a search."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from shared.db.engine import Sessions
from shared.errors import ProviderError
from shared.providers import Embedder, Embedders, Vectors
from shared.providers.embed_each import EmbedderOutageError, IsOutage, concerns_all_texts, embed_each
from shared.search import missing_vectors
from shared.search.missing_vectors import BackfilledVector, MissingVector
from shared.search.store import Offload, VectorStore, run_inline

log = structlog.get_logger(__name__)

#: How many texts a search embeds before it answers, and of how many bytes.
SEARCH_TEXTS = 32
SEARCH_BYTES = 64 * 1024


class VectorBackfill:
    """Adds missing vectors.

    Args:
        store: This process's store, to which new vectors are applied.
        offload: Runs an embedder that computes here.
    """

    def __init__(
        self, sessions: Sessions, embedders: Embedders, store: VectorStore, *, offload: Offload = run_inline
    ) -> None:
        self._sessions = sessions
        self._embedders = embedders
        self._store = store
        self._offload = offload

    def embed_for_search(self, user_id: int) -> int:
        """Embed the user's newest prompts without a vector. Returns how many are still without one.

        An embedder that fails for them does not fail the search.
        """
        with self._sessions() as session:
            missing = missing_vectors.for_user(session, user_id, SEARCH_TEXTS, SEARCH_BYTES)
        if missing:
            with suppress(EmbedderOutageError):
                self.embed(self._embedders.resolve(missing[0].embedder), missing, is_outage=concerns_all_texts)
        with self._sessions.begin() as session:
            left = missing_vectors.count(session, user_id)
            if not left:
                missing_vectors.clear_flag(session, user_id)
        return left

    def embed(self, embedder: Embedder, missing: Sequence[MissingVector], *, is_outage: IsOutage | None = None) -> int:
        """Embed prompts and store their vectors. Returns how many were stored.

        A text that is refused is tried again later, until it is given up.

        Args:
            embedder: The one whose vectors their users' searches compare.
            is_outage: As for `embed_each`.

        Raises:
            EmbedderOutageError: the embedder does not work. Nothing was stored.
        """
        run = run_inline if embedder.is_remote else self._offload
        texts = [each.prompt_text for each in missing]
        results: list[Vectors | Exception] = run(embed_each, embedder, texts, is_outage)
        vectors, refused = [], {}
        for each, result in zip(missing, results, strict=True):
            if isinstance(result, Exception):
                refused[each.prompt_id] = result
            else:
                stored_form = result.astype("<f4").tobytes()
                vectors.append(BackfilledVector(each.prompt_id, embedder.name, stored_form, each.embedder))
        with self._sessions.begin() as session:
            stored = missing_vectors.store(session, vectors)
            missing_vectors.postpone(session, stored.moved, timedelta(0))
            given_up = missing_vectors.refuse(session, list(refused))
        for user_id, rows in stored.rows.items():
            self._store.apply(user_id, rows)
        for prompt_id, error in refused.items():
            log_refusal(prompt_id, error)
            if prompt_id in given_up:
                log.error("vector given up, searches do not find the prompt", prompt_id=prompt_id)
        return sum(map(len, stored.rows.values()))


def log_refusal(prompt_id: int, error: Exception) -> None:
    """Log that the embedder failed for one prompt: with a traceback, unless the error is one of a provider."""
    is_known = isinstance(error, ProviderError)
    log.warning(
        "prompt not embedded", prompt_id=prompt_id, error=type(error).__name__, exc_info=None if is_known else error
    )
