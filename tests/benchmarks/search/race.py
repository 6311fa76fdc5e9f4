"""The comparison itself: all contenders on the same vectors, in turns, for one user after the other."""

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

#: After a bulk load the server is given so long to be done with it, in seconds.
SETTLE_SECONDS = 3.0


class Contender(Protocol):
    """One who finds a user's nearest vectors."""

    name: str

    def skips(self, owner: Owner) -> str | None:
        """Why it is not measured with this user, if it is not."""

    def prepare(self, owner: Owner) -> None:
        """Does once what need not be done at each search."""

    def search(self, owner: Owner, query: Vectors) -> list[int]:
        """The ids of the K nearest of the user's prompts."""


@dataclass(frozen=True)
class Limits:
    """How much is built for those who build graphs."""

    graph_total: int  #: how many vectors the graphs over all users have
    graph_own: int  #: how many vectors of one user a graph of their own is built over


@contextlib.contextmanager
def contenders(settings: Settings, corpus: Corpus, stores: Stores, limits: Limits, folder: Path) -> Iterator[Any]:
    """All who can be had here."""
    with connected(settings) as cursor, connected(settings) as other:
        shared = GlobalFlat(corpus)
        made: list[Callable[[], Contender]] = [
            lambda: Ours(stores),
            lambda: OwnIndex("FAISS flat of the user", in_process.flat, most=10**9),
            lambda: FilteredFlat(shared, listed=True),
            lambda: FilteredFlat(shared, listed=False),
            lambda: PgvectorExact(cursor, corpus),
            lambda: PgvectorGraph(other, corpus, limits.graph_total),
            lambda: Lance(Path(mkdtemp(dir=folder)), corpus),
            lambda: Chroma(Path(mkdtemp(dir=folder)), corpus, limits.graph_total),
            lambda: OwnIndex("usearch", _needing("usearch", in_process.usearch_graph), most=limits.graph_own),
            lambda: OwnIndex("hnswlib", _needing("hnswlib", in_process.hnswlib_graph), most=limits.graph_own),
        ]
        yield list(_available(made))


def _needing(module: str, build: Any) -> Any:
    __import__(module)
    return build


def _available(made: list[Callable[[], Contender]]) -> Iterator[Contender]:
    for make in made:
        begun = time.perf_counter()
        try:
            contender = make()
        except ImportError as error:
            print(f"One contender is skipped: {error.name} is not installed (make bench-search installs it).")
            continue
        print(f"  {contender.name}: ready in {time.perf_counter() - begun:.1f} s", flush=True)
        yield contender


def settle(settings: Settings) -> None:
    """Has the server do now what it would do amid the measurements."""
    with connected(settings) as cursor:
        cursor.execute("CHECKPOINT")
    time.sleep(SETTLE_SECONDS)


def warm(settings: Settings, owner: Owner) -> None:
    """Reads all that Postgres has of the user, so that the operating system's cache holds it.

    Some machines give memory back that lay idle for seconds. Then those who read the same rows at each search would be
    better off than those who read a few here and there, and what is measured would be the disk.
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
    """The figures of each with one user. `cpu` gives the seconds of CPU so far, of this process and of the server."""
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
