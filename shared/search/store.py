"""The interface of a vector store; FAISS in this process and pgvector implement it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from shared.providers import Embedder, Vectors
from shared.search.vector_log import LogRow

#: Returns the query's vector, shape (dimension,), by the embedder whose vectors the store is about to compare.
EmbedQuery = Callable[[Embedder], Vectors]

#: Runs a CPU-bound function: `offload(f, *args)` returns what `f(*args)` returns, and may run it in another thread.
Offload = Callable[..., Any]


def run_inline(function: Callable[..., Any], *args: Any) -> Any:
    """Call the function in this thread: an `Offload` for processes that have no event loop to keep free."""
    return function(*args)


class Match(NamedTuple):
    """A prompt and the squared L2 distance of its vector to the query: 0 the same, 4 opposite."""

    prompt_id: int
    distance: float


class SearchResult(NamedTuple):
    """What a search found, and what it compared."""

    matches: list[Match]  #: nearest first
    embedder: Embedder  #: the one whose vectors were compared
    vector: Vectors  #: the query's vector by that embedder, shape (dimension,)
    #: Whether some completed prompts may have had no vector yet. They were not compared.
    vectors_missing: bool = False


class VectorStore(Protocol):
    """Searches a user's own vectors. It is derived from the vector log and follows it. Safe to use concurrently."""

    @property
    def nbytes(self) -> int:
        """The memory it uses in this process, in bytes."""

    def search(
        self, user_id: int, embed_query: EmbedQuery, k: int, *, allowed: Sequence[int] | None = None
    ) -> SearchResult:
        """Find the at most `k` nearest of the user's vectors, as of the log's newest number.

        Args:
            allowed: The prompts to compare, all of them exactly; without it, all of the user's.
        """

    def apply(self, user_id: int, rows: Sequence[LogRow]) -> None:
        """Apply changes that were just committed, in order. Best effort: a search applies what was missed."""

    def forget(self, user_id: int) -> None:
        """Drop everything derived for the user; the next search rebuilds it from the log."""

    def drop_deleted(self) -> None:
        """Drop what this process holds of deleted accounts."""


class Maintenance(Protocol):
    """What a worker does for a store when asked: sealing segments, or building an index."""

    def seal(self, user_id: int) -> int:
        """Do what the user's vectors need, if anything. Returns how many segments or indexes it built."""
