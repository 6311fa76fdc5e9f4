"""Vectors and queries: unit length, float32, 384 dimensions, reproducible by their seed."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from shared.providers import Vectors
from shared.providers.hashing import HashingEmbedder

DIMENSION = 384
QUERIES = 300
#: The number of nearest vectors that a search finds.
K = 5
BLOCK = 20_000

#: Kinds of clustered data: the number of centres, and the length of the noise around a centre of length 1.
CLUSTERS = {"clustered 0.5": (1_000, 0.5), "clustered 1.0": (1_000, 1.0), "tight": (100, 0.3)}
KINDS = ("random", *CLUSTERS, "texts")

_SUBJECTS = """
    tides rust haiku databases gardens violins contracts taxes marathons bread telescopes bees invoices ferries maps
    granite weather chess novels batteries bridges kittens satellites cheese dialects glaciers markets novelists
""".split()  # noqa: SIM905
_VERBS = "explain describe summarise compare translate improve review draft plan estimate list rewrite".split()  # noqa: SIM905
_TURNS = """
    for a child in a letter without jargon in two sentences before friday as a table for my team in spanish
    politely with examples step by step from scratch
""".split()  # noqa: SIM905


class Data(NamedTuple):
    """One user's vectors, and queries."""

    vectors: Vectors  #: shape (n, 384)
    queries: Vectors  #: shape (QUERIES, 384): of the same kind, but not among the stored ones
    limits: npt.NDArray[np.float64]  #: the true squared distance of each query's K-th nearest, shape (QUERIES,)

    def recall(self, query: int, positions: list[int]) -> float:
        """Return the share of the K that are as near as the true ones. Of ties, any is right."""
        wanted = min(K, len(self.vectors))
        found = self.vectors[positions[:K]].astype(np.float64)
        distances = np.square(found - self.queries[query]).sum(axis=1)
        return float((distances <= self.limits[query] + 1e-6).sum()) / wanted


def make(kind: str, count: int, seed: int) -> Data:
    """Create vectors of a kind, queries of the same kind, and their true distances."""
    vectors = np.concatenate([*blocks(kind, count, seed)])
    queries = np.concatenate([*blocks(kind, QUERIES, seed, part=1)])
    return Data(vectors, queries, _limits(vectors, queries))


def blocks(kind: str, count: int, seed: int, part: int = 0) -> Iterator[Vectors]:
    """Yield vectors of a kind, in blocks. Another part has the same clusters, but other vectors."""
    rng = np.random.default_rng((seed, part, KINDS.index(kind)))
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        if kind == "texts":
            yield HashingEmbedder().embed(texts(size, rng))
        else:
            yield _unit(_around_centres(kind, size, seed, rng))


def texts(count: int, rng: np.random.Generator) -> list[str]:
    """Create prompts as people might write them: 3 to 12 words of a small vocabulary, sometimes with a number."""
    created = []
    for _ in range(count):
        subjects = rng.choice(_SUBJECTS, rng.integers(1, 4)).tolist()
        turns = rng.choice(_TURNS, rng.integers(1, 7)).tolist()
        number = [str(rng.integers(10_000))] if rng.random() < 0.5 else []
        created.append(" ".join([rng.choice(_VERBS), *subjects, *turns, *number]))
    return created


def _around_centres(kind: str, count: int, seed: int, rng: np.random.Generator) -> Vectors:
    noise = rng.standard_normal((count, DIMENSION), np.float32)
    if kind == "random":
        return noise
    centres, length = CLUSTERS[kind]
    middles = _unit(np.random.default_rng(seed).standard_normal((centres, DIMENSION), np.float32))
    return middles[rng.integers(centres, size=count)] + noise * np.float32(length / DIMENSION**0.5)


def _unit(vectors: Vectors) -> Vectors:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _limits(vectors: Vectors, queries: Vectors) -> npt.NDArray[np.float64]:
    """Return the squared distance of each query's K-th nearest, shape (len(queries),), in double precision."""
    few = min(4 * K, len(vectors))
    best = np.empty((len(queries), 0), np.float64)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        products = queries @ block.T
        count = min(few, len(block))
        nearest = np.argpartition(-products, count - 1, axis=1)[:, :count]
        differences = block[nearest].astype(np.float64) - queries[:, None, :]
        best = np.concatenate([best, np.square(differences).sum(axis=2)], axis=1)
    return np.sort(best, axis=1)[:, min(K, len(vectors)) - 1]
