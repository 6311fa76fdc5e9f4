"""The FAISS replicas that a process holds: of the users it has served lately, within a memory bound."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shared.search.faiss.loader import Loader
from shared.search.faiss.replica import Replica
from shared.search.store import Match, Offload, Query
from shared.search.throttle import Throttle
from shared.search.vector_log import Changes, LogRow

#: From this many vectors on a search is worth handing to a thread, so that an event loop goes on meanwhile.
OFFLOAD_FROM = 5_000


@dataclass(slots=True)
class _Slot:
    """A user's replica, and the lock under which another is loaded."""

    replica: Replica | None = None
    loading: threading.Lock = field(default_factory=threading.Lock)


class FaissStore:
    """Searches a user's own vectors, in memory.

    Before each answer one query tells what the log has since added, and brings the originals of what the compressed
    segments propose. So a deleted vector is never found, and distances are exact.

    Args:
        memory_mib: How much all replicas together may take, in MiB. The least recently used are dropped beyond that;
            the one in use stays, however large.
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
        self._bound = memory_mib * 1024 * 1024
        self._seal_from, self._seal_step = seal_from, max(1, seal_from // 4)
        self._ask_to_seal = Throttle(ask_to_seal)
        self._offload = offload
        self._slots: OrderedDict[int, _Slot] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self._used = 0
        self._registry = threading.Lock()

    @property
    def nbytes(self) -> int:
        """How much memory the replicas take, in bytes."""
        return self._used

    def search(self, user_id: int, query: Query, k: int) -> list[Match]:
        """The at most `k` nearest of the user's vectors, as of now."""
        with self._slot(user_id) as slot:
            replica = self._renewed(user_id, slot, None) if slot.replica is None else slot.replica
            vector = query(replica.embedder)
            needed, wanted = 0, k
            while True:
                candidates = self._run(replica, replica.candidates, vector, wanted)
                look = self._loader.look(user_id, replica, candidates)
                needed = needed or look.state.seq  # what is added while this runs may wait for the next search
                if not replica.fits(look.state):
                    before = replica.embedder
                    replica = self._renewed(user_id, slot, replica)
                    vector = vector if replica.embedder is before else query(replica.embedder)
                elif replica.mark_deleted(candidates, look.originals):
                    wanted *= 4  # others may be deleted, too
                elif replica.seq < needed:
                    self._loader.catch_up(user_id, replica, look.state.seq)
                else:
                    break
            if replica.unsealed >= self._seal_from or replica.needs_compaction:
                self._ask_to_seal(user_id)
            matches: list[Match] = self._run(replica, replica.nearest, vector, k, look.originals)
            return matches

    def apply(self, user_id: int, rows: Sequence[LogRow]) -> None:
        """Takes up changes that were just committed, if the user's replica is held and lacks nothing before them."""
        with self._registry:
            slot = self._slots.get(user_id)
        replica = None if slot is None else slot.replica
        if slot is not None and replica is not None:
            for row in rows:
                if replica.seq == row.seq - 1 and replica.takes(row):
                    replica.take(Changes.of_row(row, replica.embedder.dimension))
            self._keep_bound(user_id, slot)
        # Whoever completes prompts need not search: now and then, whether there is enough to seal is for the sealer.
        first, last = rows[0].seq, rows[-1].seq
        if last >= self._seal_from and last // self._seal_step > (first - 1) // self._seal_step:
            self._ask_to_seal(user_id)

    def forget(self, user_id: int) -> None:
        """Drops the user's replica."""
        with self._registry:
            self._slots.pop(user_id, None)
            self._resize(user_id, 0)

    def _run(self, replica: Replica, function: Callable[..., Any], *args: Any) -> Any:
        return self._offload(function, *args) if len(replica) >= OFFLOAD_FROM else function(*args)

    def _renewed(self, user_id: int, slot: _Slot, seen: Replica | None) -> Replica:
        """A replica that knows more than the one that was seen. One at a time loads; the others take what it made."""
        with slot.loading:
            replica = slot.replica
            if replica is None or replica is seen:
                replica = slot.replica = self._loader.load(user_id, replica)
            return replica

    @contextmanager
    def _slot(self, user_id: int) -> Iterator[_Slot]:
        """The user's slot; afterwards all of them are kept within the bound."""
        with self._registry:
            slot = self._slots.setdefault(user_id, _Slot())
            self._slots.move_to_end(user_id)
        try:
            yield slot
        finally:
            self._keep_bound(user_id, slot)

    def _keep_bound(self, user_id: int, slot: _Slot) -> None:
        """Counts what the user's replica takes now, and drops the least recently used ones over the bound."""
        with self._registry:
            if self._slots.get(user_id) is slot:
                self._resize(user_id, 0 if slot.replica is None else slot.replica.nbytes)
            while self._used > self._bound and len(self._slots) > 1:
                dropped, _ = self._slots.popitem(last=False)
                self._resize(dropped, 0)

    def _resize(self, user_id: int, nbytes: int) -> None:
        self._used += nbytes - self._sizes.pop(user_id, 0)
        if nbytes:
            self._sizes[user_id] = nbytes
