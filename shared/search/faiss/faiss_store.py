"""The FAISS replicas that a process holds: those of recently served users, within a memory limit."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.providers import Vectors
from shared.search.faiss.flat_index import nearest
from shared.search.faiss.loader import Loader
from shared.search.faiss.replica import NO_CANDIDATES, Replica
from shared.search.store import EmbedQuery, Match, Offload, SearchResult
from shared.search.throttle import Throttle
from shared.search.vector_log import Changes, LogRow, Seqs

#: How many vectors of allowed prompts are in memory at a time: 3 MB.
FETCHED_AT_ONCE = 2_000
#: From this many vectors a search is worth a switch to another thread, so that an event loop keeps running.
OFFLOAD_FROM = 5_000


@dataclass(slots=True)
class _Slot:
    """A user's replica, and the lock under which a newer one is loaded."""

    replica: Replica | None = None
    loading: threading.Lock = field(default_factory=threading.Lock)


class FaissStore:
    """Searches a user's own vectors, in memory.

    Before each answer one query fetches the log's state and the originals of the candidates that the compressed
    segments propose. So a deleted vector is never found, and distances are exact.

    Args:
        memory_mib: The limit for all replicas together, in MiB. Beyond it the least recently used are dropped; the one
            in use stays, however large.
        seal_from: How many unsealed vectors a user may have before `ask_to_seal` is called (see `Throttle`).
    """

    def __init__(
        self,
        loader: Loader,
        *,
        memory_mib: int,
        seal_from: int,
        ask_to_seal: Callable[[int], object],
        offload: Offload,
    ) -> None:
        self._loader = loader
        self._max_bytes = memory_mib * 1024 * 1024
        self._seal_from, self._seal_step = seal_from, max(1, seal_from // 4)
        self._ask_to_seal = Throttle(ask_to_seal)
        self._offload = offload
        self._slots: OrderedDict[int, _Slot] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self._nbytes = 0
        self._slots_lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """The memory of all replicas, in bytes."""
        return self._nbytes

    def search(
        self, user_id: int, embed_query: EmbedQuery, k: int, *, allowed: Sequence[int] | None = None
    ) -> SearchResult:
        """Find the at most `k` nearest of the user's vectors, or of the allowed ones, as of now."""
        with self._use_slot(user_id) as slot:
            replica = self._load_newer(user_id, slot, None) if slot.replica is None else slot.replica
            vector = embed_query(replica.embedder)
            min_seq, candidate_k, vectors_missing = 0, k, False
            while True:
                candidates = NO_CANDIDATES
                if allowed is None:
                    candidates = self._run(replica, replica.candidates, vector, candidate_k)
                snapshot = self._loader.fetch_snapshot(user_id, replica, candidates)
                min_seq = min_seq or snapshot.state.seq  # what is added during this search may wait for the next one
                vectors_missing = vectors_missing or snapshot.state.vectors_missing
                if not replica.is_current(snapshot.state):
                    before = replica.embedder
                    replica = self._load_newer(user_id, slot, replica)
                    vector = vector if replica.embedder is before else embed_query(replica.embedder)
                elif replica.mark_deleted(candidates, snapshot.originals):
                    candidate_k *= 4  # more of them may be deleted
                elif replica.seq < min_seq:
                    self._loader.catch_up(user_id, replica, snapshot.state.seq)
                else:
                    break
            if replica.unsealed_count >= self._seal_from or replica.needs_compaction:
                self._ask_to_seal(user_id)
            matches: list[Match]
            if allowed is None:
                matches = self._run(replica, replica.nearest, vector, k, snapshot.originals)
            else:
                matches = self._nearest_among(user_id, replica, vector, k, np.array(allowed, np.int64))
            return SearchResult(matches, replica.embedder, vector, vectors_missing)

    def apply(self, user_id: int, rows: Sequence[LogRow]) -> None:
        """Apply committed changes, if the user's replica is in memory and has everything before them."""
        with self._slots_lock:
            slot = self._slots.get(user_id)
        replica = None if slot is None else slot.replica
        if slot is not None and replica is not None:
            for row in rows:
                if replica.seq == row.seq - 1 and replica.accepts(row):
                    replica.apply(Changes.from_row(row, replica.embedder.dimension))
            self._enforce_limit(user_id, slot)
        # A process that completes prompts may never search. It asks from time to time; the sealer decides whether there
        # is enough to seal.
        first, last = rows[0].seq, rows[-1].seq
        if last >= self._seal_from and last // self._seal_step > (first - 1) // self._seal_step:
            self._ask_to_seal(user_id)

    def forget(self, user_id: int) -> None:
        """Drop the user's replica."""
        with self._slots_lock:
            self._slots.pop(user_id, None)
            self._set_size(user_id, 0)

    def drop_deleted(self) -> None:
        """Drop the replicas of deleted accounts."""
        with self._slots_lock:
            user_ids = list(self._slots)
        for user_id in self._loader.find_deleted(user_ids):
            self.forget(user_id)

    def _nearest_among(self, user_id: int, replica: Replica, query: Vectors, k: int, allowed: Seqs) -> list[Match]:
        """Return the at most `k` nearest of the allowed prompts. Segments are lossy, so theirs come from the log."""
        found, sealed = self._run(replica, replica.nearest_unsealed, query, k, allowed)
        if replica.segments:
            for start in range(0, len(sealed), FETCHED_AT_ONCE):
                part = sealed[start : start + FETCHED_AT_ONCE].tolist()
                fetched = self._loader.fetch_vectors(user_id, replica, part)
                found += self._run(replica, nearest, fetched.vectors, fetched.prompt_ids, query, k)
        return sorted(found, key=lambda match: match.distance)[:k]

    def _run(self, replica: Replica, function: Callable[..., Any], *args: Any) -> Any:
        return self._offload(function, *args) if len(replica) >= OFFLOAD_FROM else function(*args)

    def _load_newer(self, user_id: int, slot: _Slot, seen: Replica | None) -> Replica:
        """Return a newer replica than `seen`. One thread at a time loads; the others use what it has loaded."""
        with slot.loading:
            replica = slot.replica
            if replica is None or replica is seen:
                replica = slot.replica = self._loader.load(user_id, replica)
            return replica

    @contextmanager
    def _use_slot(self, user_id: int) -> Iterator[_Slot]:
        """Give the user's slot; afterwards enforce the memory limit."""
        with self._slots_lock:
            slot = self._slots.setdefault(user_id, _Slot())
            self._slots.move_to_end(user_id)
        try:
            yield slot
        finally:
            self._enforce_limit(user_id, slot)

    def _enforce_limit(self, user_id: int, slot: _Slot) -> None:
        """Update the size of the user's replica, and drop the least recently used replicas beyond the limit."""
        with self._slots_lock:
            if self._slots.get(user_id) is slot:
                self._set_size(user_id, 0 if slot.replica is None else slot.replica.nbytes)
            while self._nbytes > self._max_bytes and len(self._slots) > 1:
                dropped, _ = self._slots.popitem(last=False)
                self._set_size(dropped, 0)

    def _set_size(self, user_id: int, nbytes: int) -> None:
        self._nbytes += nbytes - self._sizes.pop(user_id, 0)
        if nbytes:
            self._sizes[user_id] = nbytes
