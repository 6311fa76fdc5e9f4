"""Looks up earlier prompts of the same user: answers to reuse, and exchanges as context for the next answer.

Everything stays within one user: the index that is searched contains nobody else's vectors.
"""

import time
from dataclasses import dataclass

import numpy as np
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import Engine, text

from shared.prompts import queries
from shared.prompts.answer import Answer
from shared.providers import Embedder, Exchange, Vectors, embed, interruption
from shared.search.store import SearchResult, VectorStore
from shared.telemetry import metrics
from worker.embedding import EmbeddedPrompt

#: How many near prompts are considered when looking for an answer to reuse.
CANDIDATES = 20
#: Prompts whose distances differ by less count as equally near; among them the newest is chosen.
EQUALLY_NEAR = 1e-4
#: Longer prompts match only equal ones: two of them may differ in a few words only, or beyond what embedders read.
MAX_SIMILAR_CHARACTERS = 500
#: The search for history finds this many times the wanted exchanges, because some may have the same prompt.
HISTORY_CANDIDATES_PER_EXCHANGE = 4


# A reused answer leads to its original source. Otherwise answers would drift away from their questions, from one copy
# to the next. A prompt with history is no source, because its answer depends on more than its own words. An answer that
# was cut off is not reused either: the model may complete the next one. Nor is one that calls tools: its caller has yet
# to run them.
#
# What else an answer depends on must be the same: the route, the generator (whose name stands for its model and
# settings), and all that the prompt asks for besides its text, by its hash (`ModelRequest.hash`).
_SOURCES = text("""
    SELECT DISTINCT source.id, source.response_text, source.model, source.finish_reason, vector
    FROM prompts AS near
    JOIN prompts AS source ON source.id = coalesce(near.cached_from, near.id) AND source.user_id = near.user_id
    JOIN vector_log ON vector_log.user_id = source.user_id AND vector_log.prompt_id = source.id
    WHERE near.user_id = :user_id AND near.id = ANY(CAST(:ids AS bigint[])) AND near.status = 'completed'
        AND source.status = 'completed' AND source.generator = :generator AND source.history = 0
        AND source.route = :route AND source.request_hash IS NOT DISTINCT FROM CAST(:request_hash AS bytea)
        AND (source.finish_reason IS NULL OR source.finish_reason = 'stop')
        AND source.response_text <> '' AND source.tool_calls IS NULL
        AND vector_log.embedder = :embedder
        AND (source.prompt_text = :prompt_text OR length(:prompt_text) <= :max_similar)
""")


class _NotEmbeddedError(Exception):
    """The embedder failed for the prompt, so there is nothing to compare."""


@dataclass(frozen=True)
class SemanticCache:
    """Looks up earlier prompts. For a prompt that could not be embedded it finds none.

    Args:
        distance: The largest distance at which an answer is reused: squared L2 of unit vectors.
        characters: The size limit of the history, prompts and answers together.
    """

    autocommit_engine: Engine
    store: VectorStore
    distance: float
    characters: int

    def cached(self, prompt: EmbeddedPrompt, generator: str) -> Answer | None:
        """Return the answer that the generator of this name gave to nearly the same prompt, if there is one."""
        try:
            found = self._search(prompt, CANDIDATES)
        except _NotEmbeddedError:
            return None
        near = [match.prompt_id for match in found.matches if match.distance <= self.distance]
        if not near:
            return None
        wanted = {
            "user_id": prompt.claim.user_id,
            "ids": near,
            "generator": generator,
            "route": prompt.claim.route,
            "request_hash": prompt.claim.request_hash,
            "embedder": found.embedder.name,
            "prompt_text": prompt.claim.prompt_text,
            "max_similar": MAX_SIMILAR_CHARACTERS,
        }
        with self.autocommit_engine.connect() as connection:
            rows = connection.execute(_SOURCES, wanted).all()
        sources = [(_distance(found.vector, row.vector), row) for row in rows]
        sources = [(distance, row) for distance, row in sources if distance <= self.distance]
        if not sources:
            return None
        nearest = min(distance for distance, _ in sources)
        source = max((row for distance, row in sources if distance < nearest + EQUALLY_NEAR), key=lambda row: row.id)
        return Answer(source.response_text, generator, source.model, 0, 0, source.finish_reason, cached_from=source.id)

    def history(self, prompt: EmbeddedPrompt) -> list[Exchange]:
        """Return the nearest exchanges, oldest first: as many as the prompt asks for and the size limit allows.

        Of several with the same prompt it takes only the newest. Answers that call tools are no exchange that a model
        could read: their results are missing.
        """
        wanted, characters_left = prompt.claim.history, self.characters
        try:
            matches = self._search(prompt, HISTORY_CANDIDATES_PER_EXCHANGE * wanted).matches
        except _NotEmbeddedError:
            return []
        with self.autocommit_engine.connect() as connection:
            rows = queries.completed(connection, prompt.claim.user_id, [match.prompt_id for match in matches])
        chosen: dict[str, tuple[int, Exchange]] = {}
        for match in sorted(matches, key=lambda match: (round(match.distance / EQUALLY_NEAR), -match.prompt_id)):
            row = rows.get(match.prompt_id)
            answer_text = row and _ordinary_text(row.answer)
            if row is None or not answer_text or row.prompt_text in chosen:
                continue
            size = len(row.prompt_text) + len(answer_text)
            if size <= characters_left and len(chosen) < wanted:
                characters_left -= size
                chosen[row.prompt_text] = (row.id, Exchange(row.prompt_text, answer_text))
        return [exchange for _, exchange in sorted(chosen.values())]

    def _search(self, prompt: EmbeddedPrompt, k: int) -> SearchResult:
        if prompt.vector is None:
            raise _NotEmbeddedError
        known: Vectors = prompt.vector

        def embed_query(embedder: Embedder) -> Vectors:
            if embedder.name == prompt.embedder.name:
                return known
            try:
                vector: Vectors = embed(embedder, [prompt.claim.prompt_text])[0]
            except SoftTimeLimitExceeded:
                raise
            except Exception as error:
                interruption.current().check()
                raise _NotEmbeddedError from error
            return vector

        started = time.perf_counter()
        result = self.store.search(prompt.claim.user_id, embed_query, k)
        metrics.searches.observe(time.perf_counter() - started)
        return result


def _ordinary_text(answer: Answer) -> str | None:
    """The text of an answer that is nothing else."""
    return None if answer.tool_calls else answer.response_text


def _distance(vector: Vectors, stored: memoryview) -> float:
    difference = vector - np.frombuffer(stored, "<f4")
    return float(difference @ difference)
