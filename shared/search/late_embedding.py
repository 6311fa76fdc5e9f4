"""Embedding prompts that were completed without a vector: in a worker's task, and in the search that misses them."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from shared.db.engine import Sessions
from shared.errors import ProviderError
from shared.providers import Embedder, Embedders, Vectors
from shared.providers.embed_each import concerns_all_texts, embed_each, works
from shared.search import missing_vectors
from shared.search.missing_vectors import LateVector, MissingVector
from shared.search.store import Offload, VectorStore, run_inline

log = structlog.get_logger(__name__)

#: How many texts a search embeds before it answers, and of how many bytes.
SEARCH_TEXTS = 32
SEARCH_BYTES = 64 * 1024

#: Tells the errors of an embedder that are no text's fault.
IsOutage = Callable[[Exception], bool]


class EmbedderOutageError(Exception):
    """The embedder does not work. `cause` is its error."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


class LateEmbedding:
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
            is_outage: By default the embedder is asked for a word after a failure, to find out whether it works.

        Raises:
            EmbedderOutageError: the embedder does not work. Nothing was stored.
        """
        run = run_inline if embedder.is_remote else self._offload
        texts = [each.prompt_text for each in missing]
        results: list[Vectors | Exception] = run(embed_texts, embedder, texts, is_outage)
        vectors, refused = [], {}
        for each, result in zip(missing, results, strict=True):
            if isinstance(result, Exception):
                refused[each.prompt_id] = result
            else:
                stored_form = result.astype("<f4").tobytes()
                vectors.append(LateVector(each.prompt_id, embedder.name, stored_form, each.embedder))
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


def embed_texts(
    embedder: Embedder, texts: Sequence[str], is_outage: IsOutage | None = None
) -> list[Vectors | Exception]:
    """Embed texts. Returns for each its vector, shape (dimension,), or the error with which it is refused.

    Args:
        is_outage: By default the embedder is asked for a word after a failure, to find out whether it works.

    Raises:
        EmbedderOutageError: the embedder does not work.
    """
    failures: list[Exception] = []

    def judge(error: Exception) -> bool:
        """Decide whether the embedder does not work. Once it was found to work, other errors are the texts' fault."""
        if is_outage is not None:
            found = is_outage(error)
        else:
            found = (not failures or concerns_all_texts(error)) and not works(embedder)
        failures.append(error)
        return found

    try:
        return embed_each(embedder, texts, is_outage=judge)
    except Exception as error:
        if failures and error is failures[-1]:
            raise EmbedderOutageError(error) from error
        raise


def log_refusal(prompt_id: int, error: Exception) -> None:
    """Log that the embedder failed for one prompt: with a traceback, unless the error is one of a provider."""
    is_known = isinstance(error, ProviderError)
    log.warning(
        "prompt not embedded", prompt_id=prompt_id, error=type(error).__name__, exc_info=None if is_known else error
    )
