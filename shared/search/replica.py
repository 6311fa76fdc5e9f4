"""One user's FAISS index."""

from collections.abc import Sequence
from typing import NamedTuple

import faiss
import numpy as np

from shared.providers import Vectors
from shared.search.log import LogRow

# faiss's own threads do not survive a fork, and one thread a query is the faster way to serve many.
faiss.omp_set_num_threads(1)


class Match(NamedTuple):
    """A prompt and the squared L2 distance of its vector to the query: 0 the same, 4 opposite."""

    prompt_id: int
    distance: float


class Replica:
    """An exact index of one user's vectors, as of number `seq` of their feed. Not safe for concurrent use."""

    def __init__(self, dimension: int) -> None:
        self.seq = 0
        self._dimension = dimension
        self._index = faiss.IndexIDMap(faiss.IndexFlatL2(dimension))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def nbytes(self) -> int:
        """About how much memory it takes: its vectors, their ids, and the objects around them."""
        return len(self) * (4 * self._dimension + 8) + 4096

    def apply(self, rows: Sequence[LogRow]) -> None:
        """Brings it up to the last of these rows, which follow `seq` in order.

        Raises:
            ValueError: a vector has another dimension, or a value that is not finite.
        """
        vectors = {row.prompt_id: row.vector for row in rows if row.vector is not None}
        removed = [row.prompt_id for row in rows if row.vector is None]
        for prompt_id in removed:
            vectors.pop(prompt_id, None)
        if removed:
            self._index.remove_ids(faiss.IDSelectorBatch(np.array(removed, dtype=np.int64)))
        if vectors:
            self._index.add_with_ids(self._matrix(vectors), np.fromiter(vectors, dtype=np.int64))
        if rows:
            self.seq = rows[-1].seq

    def search(self, query: Vectors, k: int) -> list[Match]:
        """The at most `k` nearest, nearest first. `query` is one vector, shape (dimension,)."""
        k = min(k, len(self))
        if k == 0:
            return []
        distances, ids = self._index.search(query.reshape(1, -1), k)
        return [Match(int(i), max(0.0, float(d))) for i, d in zip(ids[0], distances[0], strict=True) if i >= 0]

    def _matrix(self, vectors: dict[int, bytes]) -> Vectors:
        data = b"".join(vectors.values())
        if len(data) != len(vectors) * 4 * self._dimension:
            raise ValueError(f"a stored vector does not have {self._dimension} dimensions")
        matrix = np.frombuffer(data, dtype="<f4").reshape(len(vectors), self._dimension)
        if not np.isfinite(matrix).all():
            raise ValueError("a stored vector has a value that is not finite")
        return matrix.astype(np.float32, copy=False)
