"""What a store of vectors does, whatever is behind it: FAISS in this process, or pgvector."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from shared.providers import Embedder, Vectors
from shared.search.vector_log import LogRow

#: Gives the query's vector, shape (dimension,), by the embedder whose vectors are about to be compared.
Query = Callable[[Embedder], Vectors]

#: Runs a function that burns CPU: `offload(f, *args)` returns what `f(*args)` does, and may run it elsewhere.
Offload = Callable[..., Any]


def in_place(function: Callable[..., Any], *args: Any) -> Any:
    """An `Offload` where nothing else would have to wait."""
    return function(*args)


class Match(NamedTuple):
    """A prompt and the squared L2 distance of its vector to the query: 0 the same, 4 opposite."""

    prompt_id: int
    distance: float


class VectorStore(Protocol):
    """Finds a user's own vectors. It is derived from the vector log, and follows it. Safe to use concurrently."""

    @property
    def nbytes(self) -> int:
        """How much memory it takes in this process, in bytes."""

    def search(self, user_id: int, query: Query, k: int) -> list[Match]:
        """The at most `k` nearest of the user's vectors, nearest first, as of the log's newest number."""

    def apply(self, user_id: int, rows: Sequence[LogRow]) -> None:
        """Takes up changes that were just committed, in order. Best effort: a search takes up what was missed."""

    def forget(self, user_id: int) -> None:
        """Drops what is held of the user; it is made again from the log when it is needed."""


class Maintenance(Protocol):
    """What a worker does for a store, when that has asked for it: sealing segments, or building an index."""

    def seal(self, user_id: int) -> int:
        """Does what is to be done for the user, if anything. Returns how much it was."""
