"""Another process of ours, which searches when it is told to."""

import contextlib
import ctypes
import multiprocessing
import re
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from shared.providers import Vectors
from shared.settings import Settings
from tests.benchmarks.search.data import K
from tests.benchmarks.search.figures import timed
from tests.benchmarks.search.in_postgres import Stores
from tests.benchmarks.search.quiet import quiet

R = TypeVar("R")

_CONTEXT = multiprocessing.get_context("spawn")


class Answer(NamedTuple):
    """What another process found, and how long that took it."""

    prompt_ids: list[int]
    seconds: float


class Elsewhere:
    """A process with a store and connections of its own."""

    def __init__(self, settings: Settings) -> None:
        self._ours, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(settings, theirs), daemon=True)
        self.process.start()

    def search(self, user_id: int, query: Vectors) -> Answer:
        self._ours.send((user_id, query))
        answer: Answer = self._ours.recv()
        return answer

    def close(self) -> None:
        self._ours.send(None)
        self.process.join(timeout=10)


def _serve(settings: Settings, asked: Connection) -> None:
    quiet()
    with contextlib.closing(Stores(settings)) as made:
        store = made.make()
        while (wanted := asked.recv()) is not None:
            user_id, query = wanted
            seconds, found = timed(lambda: store.search(user_id, lambda _: query, K))  # noqa: B023
            asked.send(Answer([match.prompt_id for match in found], seconds))


def in_fresh_process(function: Callable[..., R], *args: Any) -> R:
    """What the function returns in a process that has done nothing before. It and its arguments must be picklable."""
    with _CONTEXT.Pool(1) as pool:
        return pool.apply(function, args)


def resident() -> int:
    """How much memory of its own this process has in RAM, in bytes, after giving back what is free. Linux only."""
    ctypes.CDLL(None).malloc_trim(0)
    (kilobytes,) = re.findall(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


def growth(path: str, build: Callable[[Vectors], Any]) -> float:
    """By how many bytes a vector memory grows when an index is built over the vectors of a .npy file, and searched."""
    quiet()
    vectors = np.load(path, mmap_mode="r")
    build(np.array(vectors[:1_000]))(vectors[:1])  # loads the library
    before = resident()
    search = build(np.array(vectors))
    search(np.array(vectors[:1]))
    return round((resident() - before) / len(vectors), 1)


def our_growth(settings: Settings, user_id: int, count: int, queries: Vectors) -> dict[str, float]:
    """By how many bytes a vector memory grows when ours loads a user, and what it says itself."""
    quiet()
    with contextlib.closing(Stores(settings)) as made:
        store = made.make()
        store.search(-1, lambda _: queries[0], K)  # loads the library, and connects
        before = resident()
        for query in queries[:20]:
            store.search(user_id, lambda _: query, K)  # noqa: B023
        return {"nbytes": round(store.nbytes / count, 1), "resident": round((resident() - before) / count, 1)}
