"""Child processes: one with a store of its own that searches on request, and fresh ones for single functions."""

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeVar

from shared.providers import Vectors
from shared.settings import Settings
from tests.benchmarks.search.data import K
from tests.benchmarks.search.figures import timed
from tests.benchmarks.search.in_postgres import Stores
from tests.benchmarks.search.process_setup import silence_logs

R = TypeVar("R")

_CONTEXT = multiprocessing.get_context("spawn")


class Answer(NamedTuple):
    """What the other process found, and how long it took."""

    prompt_ids: list[int]
    seconds: float


class SearchProcess:
    """A process with a store and connections of its own."""

    def __init__(self, settings: Settings) -> None:
        self._pipe, child_pipe = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(settings, child_pipe), daemon=True)
        self.process.start()

    def search(self, user_id: int, query: Vectors) -> Answer:
        self._pipe.send((user_id, query))
        answer: Answer = self._pipe.recv()
        return answer

    def close(self) -> None:
        self._pipe.send(None)
        self.process.join(timeout=10)


def _serve(settings: Settings, pipe: Connection) -> None:
    silence_logs()
    with contextlib.closing(Stores(settings)) as stores:
        store = stores.make()
        while (request := pipe.recv()) is not None:
            user_id, query = request
            seconds, found = timed(lambda: store.search(user_id, lambda _: query, K))  # noqa: B023
            pipe.send(Answer([match.prompt_id for match in found.matches], seconds))


def in_fresh_process(function: Callable[..., R], *args: Any) -> R:
    """Call a function in a new process and return its result. It and its arguments must be picklable."""
    with _CONTEXT.Pool(1) as pool:
        return pool.apply(function, args)
