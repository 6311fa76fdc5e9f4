"""What a process holds of one user: sealed segments, and all newer vectors uncompressed."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from shared.providers import Embedder, Vectors
from shared.search.faiss.flat_index import FlatIndex
from shared.search.faiss.segment import Candidates, Segment
from shared.search.faiss.segment_storage import SegmentInfo
from shared.search.store import Match
from shared.search.vector_log import Changes, LogRow, Seqs, State

#: A search compares at most this many originals; with more candidates, the vectors are practically equal.
MAX_ORIGINALS = 1_024
#: Segments are rebuilt once more than this share of the sealed vectors is deleted.
MAX_DELETED_SHARE = 0.25
#: Space for at most this many vectors is allocated before they are read: more than most users have.
MAX_RESERVED = 32_768

NO_CANDIDATES = Candidates(np.empty(0, np.int64), np.empty(0, np.float32))


class Replica:
    """An index of one user's vectors, as of number `seq` of their feed. Safe to use concurrently.

    Args:
        infos: The segments that the replica is built on; it adds what the log has beyond them.
        segments: Those segments by id.
    """

    def __init__(
        self, embedder: Embedder, state: State, infos: Sequence[SegmentInfo], segments: dict[int, Segment]
    ) -> None:
        self.embedder = embedder
        self._version, self._state_embedder = state.version, state.embedder
        self.seq = 0
        self.segments = segments
        self._sealed_count = sum(info.count for info in infos)
        self._deleted_count = 0  # of the sealed vectors, as far as this replica has seen
        self._unsealed = FlatIndex(embedder.dimension)
        self._write_lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._unsealed) + sum(map(len, self.segments.values()))

    def is_current(self, state: State) -> bool:
        """Whether it only has to catch up with the log, and need not be loaded again."""
        return (self._version, self._state_embedder) == (state.version, state.embedder)

    @property
    def nbytes(self) -> int:
        """The approximate memory of its arrays and of the objects around them, in bytes."""
        return self._unsealed.nbytes + sum(segment.nbytes for segment in self.segments.values()) + 4096

    @property
    def unsealed_count(self) -> int:
        """The number of vectors that are in no segment."""
        return len(self._unsealed)

    @property
    def needs_compaction(self) -> bool:
        """Whether enough sealed vectors are deleted for the segments to be rebuilt."""
        return self._sealed_count > 0 and self._deleted_count > MAX_DELETED_SHARE * self._sealed_count

    def accepts(self, row: LogRow) -> bool:
        """Whether the row is a deletion or has this embedder's dimension. (The user's embedder may have changed.)"""
        return row.vector is None or len(row.vector) == 4 * self.embedder.dimension

    def apply(self, changes: Changes) -> None:
        """Apply the changes after `seq`; those up to it are skipped."""
        with self._write_lock:
            if changes.last_seq <= self.seq:
                return
            new = changes.after(self.seq)
            self._unsealed.add(new)
            for prompt_id in new.removed.tolist():
                if not self._unsealed.remove(prompt_id):
                    self._deleted_count += 1
            self.seq = max(self.seq, changes.last_seq)

    @contextmanager
    def bulk_load(self, seq: int) -> Iterator[None]:
        """Have space for all that the log may have up to this number, while it is read."""
        self._unsealed.reserve(min(max(0, seq - self.seq), MAX_RESERVED))
        yield
        self._unsealed.trim()

    def advance_to(self, seq: int) -> None:
        """Record that the log has nothing else up to this number."""
        self.seq = max(self.seq, seq)

    def candidates(self, query: Vectors, k: int) -> Candidates:
        """Return the sealed vectors that may be among the `k` nearest."""
        if not self.segments:
            return NO_CANDIDATES
        parts = [segment.candidates(query, k) for segment in self.segments.values()]
        found = Candidates(*map(np.concatenate, zip(*parts, strict=True)))
        likely = found.likely(k, max(segment.error for segment in self.segments.values()))
        if len(likely.seqs) <= MAX_ORIGINALS:
            return likely
        best = np.argpartition(-likely.estimates, MAX_ORIGINALS)[:MAX_ORIGINALS]
        return Candidates(likely.seqs[best], likely.estimates[best])

    def mark_deleted(self, candidates: Candidates, originals: Changes) -> bool:
        """Exclude candidates without an original from further searches. Returns whether there were any."""
        deleted = np.setdiff1d(candidates.seqs, originals.seqs)
        if not len(deleted):
            return False
        with self._write_lock:
            for segment in self.segments.values():
                segment.mark_deleted(deleted)
        return True

    def nearest_unsealed(self, query: Vectors, k: int, prompt_ids: Seqs) -> tuple[list[Match], Seqs]:
        """Return the at most `k` nearest of these prompts among the unsealed vectors, and those that are not there."""
        return self._unsealed.search_among(query, k, prompt_ids), self._unsealed.missing(prompt_ids)

    def nearest(self, query: Vectors, k: int, originals: Changes) -> list[Match]:
        """Return the at most `k` nearest among these vectors and the unsealed ones, nearest first."""
        found = self._unsealed.search(query, k)
        if len(originals.seqs):
            distances = np.square(originals.vectors - query).sum(axis=1)
            best = np.argsort(distances)[:k]
            found += map(Match, originals.prompt_ids[best].tolist(), distances[best].tolist())
            found.sort(key=lambda match: match.distance)
        return found[:k]
