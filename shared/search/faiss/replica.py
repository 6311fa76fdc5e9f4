"""What a process holds of one user: sealed segments, and all newer vectors as they are."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from shared.providers import Embedder, Vectors
from shared.search.faiss.flat_index import FlatIndex
from shared.search.faiss.segment import Candidates, Segment
from shared.search.faiss.segment_storage import Sealed
from shared.search.store import Match
from shared.search.vector_log import Changes, LogRow, State

#: So many originals are compared at most; beyond that the vectors are as good as the same.
MAX_ORIGINALS = 1_024
#: A user whose sealed vectors are deleted to this share has them sealed anew.
HOLLOW = 0.25

#: Room for so many vectors is made before they are read: more than most users have.
ROOM = 32_768

_NOTHING = Candidates(np.empty(0, np.int64), np.empty(0, np.float32))


class Replica:
    """An index of one user's vectors, as of number `seq` of their feed. Safe to use concurrently.

    Args:
        sealed: The segments to which it adds what the log has besides.
        segments: Those segments by their ids.
    """

    def __init__(
        self, embedder: Embedder, state: State, sealed: Sequence[Sealed], segments: dict[int, Segment]
    ) -> None:
        self.embedder = embedder
        self._version, self._follows = state.version, state.embedder
        self.seq = 0
        self.segments = segments
        self._sealed = sum(each.count for each in sealed)
        self._deleted = 0  # of the sealed vectors, as far as is known
        self._tail = FlatIndex(embedder.dimension)
        self._changing = threading.Lock()

    def __len__(self) -> int:
        return len(self._tail) + sum(map(len, self.segments.values()))

    def fits(self, state: State) -> bool:
        """Whether it has only to catch up, and need not be loaded anew."""
        return (self._version, self._follows) == (state.version, state.embedder)

    @property
    def nbytes(self) -> int:
        """About how much memory it takes: its arrays, and the objects around them."""
        return self._tail.nbytes + sum(segment.nbytes for segment in self.segments.values()) + 4096

    @property
    def unsealed(self) -> int:
        """How many vectors are in no segment."""
        return len(self._tail)

    @property
    def needs_compaction(self) -> bool:
        """Whether so many sealed vectors are deleted that the segments should be made anew."""
        return self._sealed > 0 and self._deleted > HOLLOW * self._sealed

    def takes(self, row: LogRow) -> bool:
        """Whether the row is a deletion or of this embedder's dimension. (Another embedder may have come since.)"""
        return row.vector is None or len(row.vector) == 4 * self.embedder.dimension

    def take(self, changes: Changes) -> None:
        """Takes up changes that follow `seq`; of those that it has, nothing."""
        with self._changing:
            if changes.reached <= self.seq:
                return
            new = changes.after(self.seq)
            self._tail.add(new)
            for prompt_id in new.removed.tolist():
                if not self._tail.remove(prompt_id):
                    self._deleted += 1
            self.seq = max(self.seq, changes.reached)

    @contextmanager
    def filling(self, seq: int) -> Iterator[None]:
        """Has room for what the log may have up to this number, while it is read."""
        self._tail.reserve(min(max(0, seq - self.seq), ROOM))
        yield
        self._tail.trim()

    def reach(self, seq: int) -> None:
        """Notes that the log has nothing else up to this number."""
        self.seq = max(self.seq, seq)

    def candidates(self, query: Vectors, k: int) -> Candidates:
        """Those sealed vectors that may be among the `k` nearest."""
        if not self.segments:
            return _NOTHING
        parts = [segment.candidates(query, k) for segment in self.segments.values()]
        found = Candidates(*map(np.concatenate, zip(*parts, strict=True)))
        likely = found.likely(k, max(segment.error for segment in self.segments.values()))
        if len(likely.seqs) <= MAX_ORIGINALS:
            return likely
        best = np.argpartition(-likely.estimates, MAX_ORIGINALS)[:MAX_ORIGINALS]
        return Candidates(likely.seqs[best], likely.estimates[best])

    def mark_deleted(self, candidates: Candidates, originals: Changes) -> bool:
        """Leaves out from now on the candidates that have no original any more. Returns whether there are any."""
        gone = np.setdiff1d(candidates.seqs, originals.seqs)
        if not len(gone):
            return False
        with self._changing:
            for segment in self.segments.values():
                segment.mark_deleted(gone)
        return True

    def nearest(self, query: Vectors, k: int, originals: Changes) -> list[Match]:
        """The at most `k` nearest of these vectors and of the unsealed ones, nearest first."""
        found = self._tail.search(query, k)
        if len(originals.seqs):
            distances = np.square(originals.vectors - query).sum(axis=1)
            best = np.argsort(distances)[:k]
            found += map(Match, originals.prompt_ids[best].tolist(), distances[best].tolist())
            found.sort(key=lambda match: match.distance)
        return found[:k]
