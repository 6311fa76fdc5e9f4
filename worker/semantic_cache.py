"""What a prompt's user asked before: answers to take over, and exchanges that the next answer is to know of.

Everything is the user's own: the index that is searched has nobody else's vectors.
"""

import time
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Engine, text

from shared.prompts import queries
from shared.prompts.answer import Answer
from shared.providers import Embedder, Exchange, Vectors, embed
from shared.search.store import Match, VectorStore
from shared.telemetry import metrics
from worker.embedding import EmbeddedPrompt

#: How many near prompts are looked at for one whose answer may be taken.
CANDIDATES = 20
#: Prompts whose distances differ by less are equally near; then the newest counts.
EQUALLY_NEAR = 1e-4
#: Of longer prompts only equal ones count: what tells two apart may be a few words, or behind all that embedders read.
MAX_SIMILAR_CHARACTERS = 500
#: So many times as many exchanges are looked at, because some may say the same.
SPARE = 4


# What was itself taken over leads to where it came from: else, from one to the next, answers would drift away from
# their questions. A prompt with history was answered with more than its own words.
_SOURCES = text("""
    SELECT DISTINCT source.id, source.response_text, source.model, vector
    FROM prompts AS near
    JOIN prompts AS source ON source.id = coalesce(near.cached_from, near.id) AND source.user_id = near.user_id
    JOIN vector_log ON vector_log.user_id = source.user_id AND vector_log.prompt_id = source.id
    WHERE near.user_id = :user_id AND near.id = ANY(CAST(:ids AS bigint[])) AND near.status = 'completed'
        AND source.status = 'completed' AND source.generator = :generator AND source.history = 0
        AND vector_log.embedder = :embedder
        AND (source.prompt_text = :prompt_text OR length(:prompt_text) <= :longest_similar)
""")


@dataclass(frozen=True)
class SemanticCache:
    """Looks up earlier prompts.

    Args:
        distance: How far a prompt may be for its answer to be taken: squared L2 of unit vectors.
        characters: How much of earlier exchanges is told, prompts and answers together.
    """

    autocommit_engine: Engine
    store: VectorStore
    distance: float
    characters: int

    def cached(self, prompt: EmbeddedPrompt, generator: str) -> Answer | None:
        """The answer that the generator of this name gave to nearly the same prompt, if there is one."""
        matches, query = self._near(prompt, CANDIDATES)
        near = [match.prompt_id for match in matches if match.distance <= self.distance]
        if not near:
            return None
        wanted = {
            "user_id": prompt.claim.user_id,
            "ids": near,
            "generator": generator,
            "embedder": query.embedder.name,
            "prompt_text": prompt.claim.prompt_text,
            "longest_similar": MAX_SIMILAR_CHARACTERS,
        }
        with self.autocommit_engine.connect() as connection:
            sources = connection.execute(_SOURCES, wanted).all()
        found = [(_distance(query.vector, source.vector), source) for source in sources]
        found = [(distance, source) for distance, source in found if distance <= self.distance]
        if not found:
            return None
        nearest = min(distance for distance, _ in found)
        source = max((source for distance, source in found if distance < nearest + EQUALLY_NEAR), key=lambda s: s.id)
        return Answer(source.response_text, generator, source.model, 0, 0, cached_from=source.id)

    def history(self, prompt: EmbeddedPrompt) -> list[Exchange]:
        """As many of the nearest exchanges as the prompt asks for and as there is room for, oldest first.

        Of several with the same prompt only the newest.
        """
        wanted, room = prompt.claim.history, self.characters
        matches, _ = self._near(prompt, SPARE * wanted)
        with self.autocommit_engine.connect() as connection:
            found = queries.completed(connection, prompt.claim.user_id, [match.prompt_id for match in matches])
        chosen: dict[str, tuple[int, Exchange]] = {}
        for match in sorted(matches, key=lambda match: (round(match.distance / EQUALLY_NEAR), -match.prompt_id)):
            row = found.get(match.prompt_id)
            if row is None or row.answer.response_text is None or row.prompt_text in chosen:
                continue
            size = len(row.prompt_text) + len(row.answer.response_text)
            if size <= room and len(chosen) < wanted:
                room -= size
                chosen[row.prompt_text] = (row.id, Exchange(row.prompt_text, row.answer.response_text))
        return [exchange for _, exchange in sorted(chosen.values())]

    def _near(self, prompt: EmbeddedPrompt, count: int) -> tuple[list[Match], "_Query"]:
        query, begun = _Query(prompt), time.perf_counter()
        matches = self.store.search(prompt.claim.user_id, query, count)
        metrics.searches.observe(time.perf_counter() - begun)
        return matches, query


class _Query:
    """A prompt's vector, by whichever embedder its user's searches compare."""

    def __init__(self, prompt: EmbeddedPrompt) -> None:
        self._text = prompt.claim.prompt_text
        self.embedder, self.vector = prompt.embedder, prompt.vector

    def __call__(self, embedder: Embedder) -> Vectors:
        if embedder.name != self.embedder.name:
            self.embedder, self.vector = embedder, embed(embedder, [self._text])[0]
        return self.vector


def _distance(vector: Vectors, stored: memoryview) -> float:
    difference = vector - np.frombuffer(stored, "<f4")
    return float(difference @ difference)
