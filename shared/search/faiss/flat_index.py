"""The part of a replica that is compared exactly."""

import faiss
import numpy as np
import numpy.typing as npt

from shared.providers import Vectors
from shared.search.store import Match
from shared.search.vector_log import Changes, Seqs

_GROWTH = 1.5
_MIN_CAPACITY = 16
#: The id of a row whose vector was removed.
_REMOVED = 0


class FlatIndex:
    """Vectors in memory. One thread at a time may change them while others search.

    Readers take `_rows` once: views of arrays that grow at the end and are replaced, never moved. A removed row keeps
    its place, without an id, until many rows are removed.
    """

    def __init__(self, dimension: int) -> None:
        self._vectors: Vectors = np.empty((0, dimension), np.float32)
        self._ids: Seqs = np.empty(0, np.int64)
        self._rows = (self._vectors, self._ids)
        self._removed_count = 0

    def __len__(self) -> int:
        return len(self._rows[1]) - self._removed_count

    @property
    def nbytes(self) -> int:
        """The memory of the arrays, in bytes."""
        return self._vectors.nbytes + self._ids.nbytes

    def reserve(self, count: int) -> None:
        """Allocate space for `count` more vectors, which saves copying the present ones repeatedly."""
        rows = len(self._rows[1])
        self._reallocate(rows + count, np.arange(rows))

    def trim(self) -> None:
        """Free the space that is not used."""
        self._reallocate(len(self._rows[1]), np.arange(len(self._rows[1])))

    def add(self, changes: Changes) -> None:
        """Add the vectors of these changes."""
        old, new = len(self._rows[1]), len(self._rows[1]) + len(changes.seqs)
        if new > len(self._ids):
            self._reallocate(max(_MIN_CAPACITY, new, int(old * _GROWTH)), np.arange(old))
        self._vectors[old:new] = changes.vectors
        self._ids[old:new] = changes.prompt_ids
        self._rows = (self._vectors[:new], self._ids[:new])

    def remove(self, prompt_id: int) -> bool:
        """Remove a prompt's vector. Returns whether there was one."""
        rows = len(self._rows[1])
        (found,) = np.nonzero(self._rows[1] == prompt_id)
        if not len(found):
            return False
        self._ids = self._ids.copy()  # running searches keep the old ones
        self._ids[found] = _REMOVED
        self._rows = (self._vectors[:rows], self._ids[:rows])
        self._removed_count += len(found)
        if self._removed_count > max(64, rows // 8):
            self._reallocate(rows - self._removed_count, np.flatnonzero(self._ids[:rows]))
            self._removed_count = 0
        return True

    def search(self, query: Vectors, k: int) -> list[Match]:
        """Return the at most `k` nearest, nearest first. `query` is one vector, shape (dimension,)."""
        vectors, ids = self._rows
        k = min(k + len(ids) - int(np.count_nonzero(ids)), len(ids))  # removed ones may be among the nearest
        if k == 0:
            return []
        distances, positions = faiss.knn(query.reshape(1, -1), vectors, k)
        found = zip(ids[positions[0]].tolist(), distances[0].tolist(), strict=True)
        return [Match(prompt_id, max(0.0, distance)) for prompt_id, distance in found if prompt_id != _REMOVED]

    def search_among(self, query: Vectors, k: int, prompt_ids: Seqs) -> list[Match]:
        """Return the at most `k` nearest of these prompts, nearest first."""
        vectors, ids = self._rows
        (rows,) = np.nonzero(np.isin(ids, prompt_ids))
        return nearest(vectors[rows], ids[rows], query, k)

    def missing(self, prompt_ids: Seqs) -> Seqs:
        """Return those of these prompts that have no vector here."""
        missing: Seqs = np.setdiff1d(prompt_ids, self._rows[1])
        return missing

    def _reallocate(self, capacity: int, kept: npt.NDArray[np.intp]) -> None:
        """Copy the rows at these positions to new arrays."""
        vectors, ids = self._vectors, self._ids
        self._vectors = np.empty((capacity, vectors.shape[1]), np.float32)
        self._ids = np.empty(capacity, np.int64)
        np.take(vectors, kept, axis=0, out=self._vectors[: len(kept)])
        np.take(ids, kept, out=self._ids[: len(kept)])
        self._rows = (self._vectors[: len(kept)], self._ids[: len(kept)])


def nearest(vectors: Vectors, ids: Seqs, query: Vectors, k: int) -> list[Match]:
    """Return the at most `k` nearest of these vectors, nearest first. Compares them exactly."""
    if not len(ids):
        return []
    distances, positions = faiss.knn(query.reshape(1, -1), np.ascontiguousarray(vectors), min(k, len(ids)))
    found = zip(ids[positions[0]].tolist(), distances[0].tolist(), strict=True)
    return [Match(prompt_id, max(0.0, distance)) for prompt_id, distance in found]
