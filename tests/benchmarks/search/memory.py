"""Measures memory: of an index of one user's vectors, and of a process that serves many users."""

import contextlib
import ctypes
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from shared.providers import Vectors
from shared.settings import Settings
from tests.benchmarks.search import data, in_process
from tests.benchmarks.search.corpus import Corpus, Owner, connected, copy, log_rows
from tests.benchmarks.search.figures import median
from tests.benchmarks.search.in_postgres import Stores
from tests.benchmarks.search.process_setup import silence_logs
from tests.benchmarks.search.search_process import in_fresh_process


def per_vector(settings: Settings, owner: Owner, *, graphs: bool) -> dict[str, dict[str, float]]:
    """Return by how many bytes per vector a fresh process grows that loads an index of one user's vectors."""
    found = {"ours": in_fresh_process(_our_growth, settings, owner.user_id, owner.size, owner.data.queries)}
    builds = {"FAISS flat of the user": in_process.flat}
    if graphs:
        builds |= {"usearch": in_process.usearch_graph, "hnswlib": in_process.hnswlib_graph}
    with TemporaryDirectory() as folder:
        path = Path(folder, "vectors.npy")
        np.save(path, owner.data.vectors)
        for name, build in builds.items():
            with contextlib.suppress(ImportError):
                found[name] = {"resident": in_fresh_process(_growth, str(path), build)}
    return found


def _growth(path: str, build: Callable[[Vectors], Any]) -> float:
    """Return the bytes per vector of an index of the vectors in a .npy file, after one search."""
    silence_logs()
    vectors = np.load(path, mmap_mode="r")
    build(np.array(vectors[:1_000]))(vectors[:1])  # loads the library
    before = resident()
    search = build(np.array(vectors))
    search(np.array(vectors[:1]))
    return round((resident() - before) / len(vectors), 1)


def _our_growth(settings: Settings, user_id: int, count: int, queries: Vectors) -> dict[str, float]:
    """Return the bytes per vector of a user in our store, as measured and as the store reports them."""
    silence_logs()
    with contextlib.closing(Stores(settings)) as stores:
        store = stores.make()
        store.search(-1, lambda _: queries[0], data.K)  # loads the library, and connects
        before = resident()
        for query in queries[:20]:
            store.search(user_id, lambda _: query, data.K)  # noqa: B023
        return {"nbytes": round(store.nbytes / count, 1), "resident": round((resident() - before) / count, 1)}


def resident() -> int:
    """Return this process's anonymous memory in RAM, in bytes, after free memory was returned. Linux only."""
    ctypes.CDLL(None).malloc_trim(0)
    (kilobytes,) = re.findall(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


def with_limit(settings: Settings, corpus: Corpus, users: int, searches: int) -> dict[str, float]:
    """Measure the memory of a process that serves many users at random, with SEARCH_MEMORY_MIB=16."""
    first = max(owner.user_id for owner in corpus.owners) + 100_000
    counts = np.random.default_rng(3).integers(20, 201, size=users)
    with connected(settings) as cursor:
        cursor.execute(
            "INSERT INTO users (id, username, password_hash, embedder, seq) OVERRIDING SYSTEM VALUE "
            "SELECT %s + n - 1, 'small-' || n, '-', 'hashing-1', c FROM unnest(%s) WITH ORDINALITY AS counts (c, n)",
            (first, counts.tolist()),
        )
        for start in range(0, users, 500):
            copy(cursor, "vector_log (user_id, seq, prompt_id, embedder, vector)", _small_users(first, counts, start))
        cursor.execute("VACUUM ANALYZE vector_log")
    held, grown, taken = in_fresh_process(_serve_many, settings, first, users, searches)
    return {
        "users": users,
        "vectors": int(counts.sum()),
        "searches": searches,
        "most_held_mib": round(held / 2**20, 2),
        "resident_growth_mib": round(grown / 2**20, 2),
        "p50_ms": round(taken * 1e3, 3),
    }


def _small_users(first: int, counts: Any, start: int) -> Iterator[bytes]:
    for user, count in enumerate(counts[start : start + 500].tolist(), start):
        for block in data.blocks("random", count, seed=user):
            yield from log_rows(first + user, 0, block)


def _serve_many(settings: Settings, first: int, users: int, searches: int) -> tuple[int, int, float]:
    """Return the most that the store reported and the growth of memory, in bytes; and the median search, in seconds."""
    silence_logs()
    rng = np.random.default_rng(4)
    query = next(data.blocks("random", 1, seed=5))[0]
    with contextlib.closing(Stores(settings)) as stores:
        store = stores.make(memory_mib=16)
        store.search(-1, lambda _: query, data.K)
        before, held, most, taken = resident(), 0, 0, []
        for number, user in enumerate(rng.integers(users, size=searches).tolist()):
            started = time.perf_counter()
            store.search(first + user, lambda _: query, data.K)
            taken.append(time.perf_counter() - started)
            held = max(held, store.nbytes)
            if number % 200 == 0:
                most = max(most, resident())
        return held, max(most, resident()) - before, median(taken)
