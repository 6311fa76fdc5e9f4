"""The comparison: all contenders on the same vectors, in turns, for one user after the other."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Protocol

import numpy as np

from shared.providers import Vectors
from shared.settings import Settings
from tests.benchmarks.cpu import Cpu
from tests.benchmarks.search import in_process
from tests.benchmarks.search.corpus import Corpus, Owner, connected
from tests.benchmarks.search.figures import Turns, in_turns
from tests.benchmarks.search.in_postgres import Ours, PgvectorExact, PgvectorGraph, Stores
from tests.benchmarks.search.in_process import Chroma, FilteredFlat, GlobalFlat, Lance, OwnIndex

#: Time for the server to finish its work after a bulk load.
SETTLE_SECONDS = 3.0


class Contender(Protocol):
    """A way to find a user's nearest vectors."""

    name: str

    def skips(self, owner: Owner) -> str | None:
        """Return why it is not measured with this user, or None if it is."""

    def prepare(self, owner: Owner) -> None:
        """Do the work that is needed only once per user."""

    def search(self, owner: Owner, query: Vectors) -> list[int]:
        """Return the ids of the K nearest of the user's prompts."""


@dataclass(frozen=True)
class Limits:
    """Size limits for contenders that build graphs."""

    graph_total: int  #: vectors in a graph of all users
    graph_own: int  #: the largest user who gets a graph


@contextlib.contextmanager
def contenders(settings: Settings, corpus: Corpus, stores: Stores, limits: Limits, folder: Path) -> Iterator[Any]:
    """Create all contenders whose libraries are installed."""
    with connected(settings) as cursor, connected(settings) as other:
        shared = GlobalFlat(corpus)
        made: list[Callable[[], Contender]] = [
            lambda: Ours(stores),
            lambda: OwnIndex("FAISS flat of the user", in_process.flat, max_vectors=10**9),
            lambda: FilteredFlat(shared, listed=True),
            lambda: FilteredFlat(shared, listed=False),
            lambda: PgvectorExact(cursor, corpus),
            lambda: PgvectorGraph(other, corpus, limits.graph_total),
            lambda: Lance(Path(mkdtemp(dir=folder)), corpus),
            lambda: Chroma(Path(mkdtemp(dir=folder)), corpus, limits.graph_total),
            lambda: OwnIndex("usearch", _needing("usearch", in_process.usearch_graph), max_vectors=limits.graph_own),
            lambda: OwnIndex("hnswlib", _needing("hnswlib", in_process.hnswlib_graph), max_vectors=limits.graph_own),
        ]
        yield list(_available(made))


def _needing(module: str, build: Any) -> Any:
    __import__(module)
    return build


def _available(made: list[Callable[[], Contender]]) -> Iterator[Contender]:
    for make in made:
        started = time.perf_counter()
        try:
            contender = make()
        except ImportError as error:
            print(f"Skipping a contender: {error.name} is not installed (make bench-search installs it).")
            continue
        print(f"  {contender.name}: ready in {time.perf_counter() - started:.1f} s", flush=True)
        yield contender


def settle(settings: Settings) -> None:
    """Have the server do pending work now, not during the measurements."""
    with connected(settings) as cursor:
        cursor.execute("CHECKPOINT")
    time.sleep(SETTLE_SECONDS)


def warm(settings: Settings, owner: Owner) -> None:
    """Read all rows of the user, so that they are in the operating system's cache.

    Some machines reclaim memory that was not used for seconds. Then contenders that read the same rows in every search
    would have an advantage over those that read a few scattered rows, and the disk would be measured.
    """
    columns = {"vector_log": "octet_length(vector)", "narrow": "vector_dims(embedding)"}
    with connected(settings) as cursor:
        for table, column in columns.items():
            cursor.execute("SELECT to_regclass(%s)", (table,))
            if cursor.fetchone() != (None,):
                cursor.execute(f"SELECT sum({column}) FROM {table} WHERE user_id = %s", (owner.user_id,))  # noqa: S608


def race(
    owner: Owner, taking_part: list[Contender], turns: Turns, cpu: Cpu, settings: Settings
) -> dict[str, dict[str, Any]]:
    """Measure each contender with one user. `cpu` returns the CPU seconds so far, of this process and the server."""
    racing: dict[str, Contender] = {}
    figures: dict[str, dict[str, Any]] = {}
    for contender in taking_part:
        reason = contender.skips(owner)
        if reason is None:
            taken = time.perf_counter()
            contender.prepare(owner)
            figures[contender.name] = {"prepare_s": round(time.perf_counter() - taken, 4)}
            racing[contender.name] = contender
        else:
            figures[contender.name] = {"skipped": reason}

    queries = owner.data.queries
    recalls: dict[str, list[float]] = {name: [] for name in racing}

    def check(name: str, number: int, found: list[int]) -> None:
        recalls[name].append(owner.data.recall(number % len(queries), owner.positions(found)))

    def call(contender: Contender) -> Callable[[int], list[int]]:
        return lambda number: contender.search(owner, queries[number % len(queries)])

    calls = {name: call(each) for name, each in racing.items()}
    times = in_turns(calls, turns, on_result=check, cpu=cpu, before=lambda: warm(settings, owner))
    for name, taken in times.items():
        figures[name] |= taken.figures()
        figures[name] |= {**taken.ratios(times["ours"]), "recall": round(float(np.mean(recalls[name])), 4)}
    return figures
