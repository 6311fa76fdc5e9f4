"""The FAISS replicas that a process holds: of the users it has served lately, within a memory bound."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from shared.database import Sessions
from shared.providers import Embedder, Vectors
from shared.search import log
from shared.search.log import LogRow
from shared.search.replica import Match, Replica

Offload = Callable[..., Any]

#: From this many vectors on a search is worth handing to a thread, so that an event loop goes on meanwhile.
OFFLOAD_FROM = 5_000


@dataclass(slots=True)
class _Slot:
    """A user's replica with the lock under which it is read and written."""

    replica: Replica
    lock: threading.Lock = field(default_factory=threading.Lock)


class Replicas:
    """Searches a user's own vectors. Before each search the user's replica applies what the log has since added.

    Args:
        memory_mib: How much all replicas together may take, in MiB. The least recently used are dropped beyond that;
            the one in use stays, however large.
        offload: How to run a function that burns CPU; `offload(f, *args)` returns what `f(*args)` does.
    """

    def __init__(
        self, sessions: Sessions, embedder: Embedder, *, memory_mib: int, offload: Offload | None = None
    ) -> None:
        self._sessions = sessions
        self._embedder = embedder
        self._bound = memory_mib * 1024 * 1024
        self._offload = offload or (lambda function, *args: function(*args))
        self._slots: OrderedDict[int, _Slot] = OrderedDict()
        self._sizes: dict[int, int] = {}
        self._used = 0
        self._registry = threading.Lock()

    @property
    def nbytes(self) -> int:
        """How much memory the replicas take, in bytes."""
        return self._used

    def search(self, user_id: int, query: Vectors, k: int) -> list[Match]:
        """The at most `k` nearest of the user's vectors, as of now. `query` is one vector, shape (dimension,)."""
        with self._replica(user_id) as replica:
            self._catch_up(user_id, replica)
            if len(replica) < OFFLOAD_FROM:
                return replica.search(query, k)
            matches: list[Match] = self._offload(replica.search, query, k)
            return matches

    def apply(self, user_id: int, row: LogRow) -> None:
        """Takes up a change that was just committed; reads the log only if others are missing before it."""
        with self._replica(user_id) as replica:
            if replica.seq == row.seq - 1:
                replica.apply([row])
            elif replica.seq < row.seq:
                self._catch_up(user_id, replica)

    def _catch_up(self, user_id: int, replica: Replica) -> None:
        """Applies the log in batches. Each one extends a gapless prefix, so a failure between two leaves it sound."""
        with self._sessions() as session:
            while True:
                rows = log.after(session, user_id, replica.seq, self._embedder.name)
                replica.apply(rows)
                if len(rows) < log.BATCH:
                    return

    @contextmanager
    def _replica(self, user_id: int) -> Iterator[Replica]:
        """The user's replica, for one at a time; afterwards keeps all of them within the bound."""
        with self._registry:
            slot = self._slots.get(user_id)
            if slot is None:
                slot = self._slots[user_id] = _Slot(Replica(self._embedder.dimension))
            self._slots.move_to_end(user_id)
        try:
            with slot.lock:
                yield slot.replica
        finally:
            self._keep_bound(user_id, slot)

    def _keep_bound(self, user_id: int, slot: _Slot) -> None:
        """Counts what the user's replica takes now, and drops the least recently used ones over the bound."""
        with self._registry:
            if self._slots.get(user_id) is slot:
                self._resize(user_id, slot.replica.nbytes)
            while self._used > self._bound and len(self._slots) > 1:
                dropped, _ = self._slots.popitem(last=False)
                self._resize(dropped, 0)

    def _resize(self, user_id: int, nbytes: int) -> None:
        self._used += nbytes - self._sizes.pop(user_id, 0)
        if nbytes:
            self._sizes[user_id] = nbytes
