"""Search in a user's own completed prompts: by meaning, by words, or both, among those that a filter lets through."""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import partial
from typing import NamedTuple, TypeVar

from sqlalchemy import Engine

from shared.prompts import queries
from shared.prompts.filters import ALL_PROMPTS, PromptFilter
from shared.search.store import EmbedQuery, Match, SearchResult, VectorStore
from shared.search.vector_backfill import VectorBackfill
from shared.search.words.word_index import MAX_MATCHES, WordIndex, WordMatch

#: How many prompts a filter is tried on first; the most that a search by words returns.
DEPTH = MAX_MATCHES
#: How many prompts of each list a hybrid search fuses; the most that a request may ask for.
FUSED = 50
#: The constant of reciprocal rank fusion.
RRF_K = 60
#: A hybrid search counts a match by words only with at least this share of the query (`WordMatch.share`), and of what
#: the best match has. Otherwise prompts with the query's common words alone would displace those that mean the same.
MIN_SHARE, MIN_SHARE_OF_BEST = 0.1, 0.8

_Hit = TypeVar("_Hit", Match, WordMatch)


class Mode(StrEnum):
    """What a search compares."""

    VECTOR = "vector"  # the vectors of the prompts: their meaning
    TEXT = "text"  # the words of the prompts and of their answers
    HYBRID = "hybrid"  # both, fused by reciprocal rank


class Found(NamedTuple):
    """A prompt that a search found."""

    prompt_id: int
    distance: float | None  #: of its vector to the query's (see `Match`); None if it was found by its words alone


class PromptSearch:
    """Searches in every mode.

    Args:
        autocommit_engine: An engine in autocommit, for queries of one statement.
        backfill: Adds missing vectors before a search answers.
    """

    def __init__(
        self, store: VectorStore, words: WordIndex, backfill: VectorBackfill, autocommit_engine: Engine
    ) -> None:
        self._store = store
        self._words = words
        self._backfill = backfill
        self._autocommit_engine = autocommit_engine

    def search(
        self, user_id: int, mode: Mode, query: str, embed_query: EmbedQuery, k: int, only: PromptFilter = ALL_PROMPTS
    ) -> tuple[list[Found], int]:
        """Find the at most `k` best of the user's completed prompts that match the filter, best first.

        Returns them, and how many could not be compared because they have no vector.
        """
        wanted = _Wanted(user_id, k, k if mode == Mode.VECTOR else FUSED, only)
        if mode == Mode.TEXT:
            return [Found(match.prompt_id, None) for match in self._by_words(wanted, query)[:k]], 0
        by_vector, missing = self._by_vector(wanted, embed_query)
        if mode == Mode.VECTOR:
            return [Found(*match) for match in by_vector], missing
        distances = dict(by_vector)
        fused = fuse(distances, _strong(self._by_words(wanted, query), k))
        return [Found(each, distances.get(each)) for each in fused[:k]], missing

    def _by_vector(self, wanted: "_Wanted", embed_query: EmbedQuery) -> tuple[list[Match], int]:
        result = self._nearest(wanted, embed_query)
        if not result.vectors_missing:
            return result.matches, 0
        missing = self._backfill.embed_for_search(wanted.user_id)
        return self._nearest(wanted, _unless_known(embed_query, result)).matches, missing

    def _nearest(self, wanted: "_Wanted", embed_query: EmbedQuery) -> SearchResult:
        search = partial(self._store.search, wanted.user_id)
        if not wanted.only.conditions:
            return search(embed_query, wanted.depth)
        result = search(embed_query, DEPTH)
        known = _unless_known(embed_query, result)
        found = self._filtered(
            wanted, result.matches, lambda allowed: search(known, wanted.depth, allowed=allowed).matches
        )
        return result._replace(matches=found)

    def _by_words(self, wanted: "_Wanted", query: str) -> list[WordMatch]:
        search = partial(self._words.search, wanted.user_id, query)
        if not wanted.only.conditions:
            return search()[: wanted.depth]
        return self._filtered(wanted, search(), lambda allowed: search(allowed=allowed))

    def _filtered(
        self, wanted: "_Wanted", best: list[_Hit], search_among: Callable[[Sequence[int]], list[_Hit]]
    ) -> list[_Hit]:
        """Return the best that match the filter: at least `k`, or all that there are.

        Most filters let enough of the best DEPTH through. Otherwise the search is repeated among all prompts that the
        filter lets through.
        """
        with self._autocommit_engine.connect() as connection:
            matching = partial(queries.matching, connection, wanted.user_id, wanted.only)
            kept = set(matching([match.prompt_id for match in best]))
            is_enough = len(kept) >= wanted.k or len(best) < DEPTH
            allowed = [] if is_enough else matching()
        found = [match for match in best if match.prompt_id in kept] if is_enough else search_among(allowed)
        return found[: wanted.depth]


class _Wanted(NamedTuple):
    """What each of the two searches is to find."""

    user_id: int
    k: int  #: the prompts that the caller wants
    depth: int  #: at most how many to return; more than `k` if they are fused
    only: PromptFilter


def _strong(matches: Sequence[WordMatch], k: int) -> list[int]:
    """The prompts that have enough of the query, best first: as many as the caller wants, at most.

    More of them would have the best rank together, and displace the prompt that means the same.
    """
    enough = max(MIN_SHARE, MIN_SHARE_OF_BEST * max((match.share for match in matches), default=0.0))
    return [match.prompt_id for match in matches if match.share >= enough][:k]


def fuse(*rankings: Iterable[int], k: int = RRF_K) -> list[int]:
    """Fuse rankings of prompts, best first, into one: by the sums of 1 / (k + rank).

    Reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009, "Reciprocal Rank Fusion outperforms Condorcet and
    individual Rank Learning Methods"). Of equal sums the newest prompt comes first.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, prompt_id in enumerate(ranking, 1):
            scores[prompt_id] = scores.get(prompt_id, 0.0) + 1 / (k + rank)
    return sorted(scores, key=lambda prompt_id: (-scores[prompt_id], -prompt_id))


def _unless_known(embed_query: EmbedQuery, found: SearchResult) -> EmbedQuery:
    """Return the query's vector of a search before; embed only if another embedder's vectors are compared by now."""
    return lambda embedder: found.vector if embedder is found.embedder else embed_query(embedder)
