"""The part of a replica that is compared exactly."""

import faiss
import numpy as np
import numpy.typing as npt

from shared.providers import Vectors
from shared.search.store import Match
from shared.search.vector_log import Changes, Seqs

_GROWTH = 1.5
_FIRST_ROOM = 16
#: The id of a row whose vector was removed.
_GONE = 0


class FlatIndex:
    """Vectors in memory. One thread at a time may change it while others search.

    Readers take `_rows` once: views of arrays that grow behind them and are replaced, never moved. A removed row stays
    until there are many, without an id.
    """

    def __init__(self, dimension: int) -> None:
        self._vectors: Vectors = np.empty((0, dimension), np.float32)
        self._ids: Seqs = np.empty(0, np.int64)
        self._rows = (self._vectors, self._ids)
        self._gone = 0

    def __len__(self) -> int:
        return len(self._rows[1]) - self._gone

    @property
    def nbytes(self) -> int:
        """How much memory the arrays take."""
        return self._vectors.nbytes + self._ids.nbytes

    def reserve(self, more: int) -> None:
        """Makes room for so many more vectors, which saves moving those that are there again and again."""
        rows = len(self._rows[1])
        self._make_room(rows + more, np.arange(rows))

    def trim(self) -> None:
        """Gives back room that is not used."""
        self._make_room(len(self._rows[1]), np.arange(len(self._rows[1])))

    def add(self, changes: Changes) -> None:
        """Adds the vectors of these changes."""
        old, new = len(self._rows[1]), len(self._rows[1]) + len(changes.seqs)
        if new > len(self._ids):
            self._make_room(max(_FIRST_ROOM, new, int(old * _GROWTH)), np.arange(old))
        self._vectors[old:new] = changes.vectors
        self._ids[old:new] = changes.prompt_ids
        self._rows = (self._vectors[:new], self._ids[:new])

    def remove(self, prompt_id: int) -> bool:
        """Removes a prompt's vector. Returns whether there was one."""
        rows = len(self._rows[1])
        (found,) = np.nonzero(self._rows[1] == prompt_id)
        if not len(found):
            return False
        self._ids = self._ids.copy()  # whoever searches goes on with the old ones
        self._ids[found] = _GONE
        self._rows = (self._vectors[:rows], self._ids[:rows])
        self._gone += len(found)
        if self._gone > max(64, rows // 8):
            self._make_room(rows - self._gone, np.flatnonzero(self._ids[:rows]))
            self._gone = 0
        return True

    def search(self, query: Vectors, k: int) -> list[Match]:
        """The at most `k` nearest, nearest first. `query` is one vector, shape (dimension,)."""
        vectors, ids = self._rows
        k = min(k + len(ids) - int(np.count_nonzero(ids)), len(ids))  # removed ones may be among the nearest
        if k == 0:
            return []
        distances, positions = faiss.knn(query.reshape(1, -1), vectors, k)
        found = zip(ids[positions[0]].tolist(), distances[0].tolist(), strict=True)
        return [Match(prompt_id, max(0.0, distance)) for prompt_id, distance in found if prompt_id != _GONE]

    def _make_room(self, capacity: int, kept: npt.NDArray[np.intp]) -> None:
        """Moves the rows at these positions to new arrays."""
        vectors, ids = self._vectors, self._ids
        self._vectors = np.empty((capacity, vectors.shape[1]), np.float32)
        self._ids = np.empty(capacity, np.int64)
        np.take(vectors, kept, axis=0, out=self._vectors[: len(kept)])
        np.take(ids, kept, out=self._ids[: len(kept)])
        self._rows = (self._vectors[: len(kept)], self._ids[: len(kept)])
