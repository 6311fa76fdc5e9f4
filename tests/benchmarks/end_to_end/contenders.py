"""The contenders of a run, and their measurements in alternation."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import psutil

from tests.benchmarks.end_to_end import ours
from tests.benchmarks.end_to_end.contender import Contender
from tests.benchmarks.end_to_end.generator import Generator, users_of
from tests.benchmarks.peers.serving import NotInstalledError
from tests.support.servers import Servers

PEERS = ("original", "taskiq_fastapi", "procrastinate_fastapi", "dramatiq_flask", "one_task_each")
USERS = 200


@dataclass
class Lineup:
    """The running contenders, each with its load generator, and the reasons why the others were skipped."""

    running: dict[str, tuple[Contender, Generator]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def alternate(self, rounds: int, turn: Callable[[str, Contender, Generator], dict[str, Any]]) -> "Measurements":
        """Measure each contender in each round, starting with another one each time. Drop a contender that dies."""
        measurements = Measurements({name: [] for name in self.running})
        for number in range(rounds):
            for name in rotated(list(self.running), number):
                contender, generator = self.running[name]
                try:
                    measurements.by_contender[name].append(turn(name, contender, generator))
                except (psutil.NoSuchProcess, RuntimeError) as error:
                    print(f"  {name} is dropped: {error}", flush=True)
                    self.skipped[name] = f"it died in round {number + 1}"
                    del self.running[name]
        return measurements


@dataclass
class Measurements:
    """The result of each turn, by contender. A contender that has died has fewer results."""

    by_contender: dict[str, list[dict[str, Any]]]

    def values(self, name: str, figure: Callable[[dict[str, Any]], float | None]) -> list[float]:
        return [value for turn in self.by_contender.get(name, []) if (value := figure(turn)) is not None]


@contextlib.contextmanager
def contenders(servers: Servers, names: Sequence[str]) -> Iterator[Lineup]:
    """Start the contenders that can run on this machine."""
    with contextlib.ExitStack() as stack:
        lineup = Lineup()
        for name in names:
            try:
                serve = ours.serve if name == "ours" else import_module(f"tests.benchmarks.peers.{name}.serve").serve
                contender = stack.enter_context(serve(servers, USERS))
            except (ImportError, NotInstalledError) as error:
                lineup.skipped[name] = str(error)
                print(f"  {name} is skipped: {error}", flush=True)
            else:
                lineup.running[name] = (contender, stack.enter_context(users_of(contender)))
        yield lineup


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Return the names in the same cyclic order, starting `by` places later."""
    at = by % max(len(names), 1)
    return [*names[at:], *names[:at]]


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float] | None:
    """Return the median, the minimum and the maximum."""
    if not values:
        return None
    named = {"median": np.median(values), "min": min(values), "max": max(values)}
    return {name: round(float(value), digits) for name, value in named.items()}


def ratios(values: Sequence[float], others: Sequence[float]) -> dict[str, float] | None:
    """Return the spread of each value divided by the other's value of the same round."""
    return spread([a / b for a, b in zip(values, others, strict=False) if b])


_COUNTS = (
    "sent", "accepted", "503_without_retry_after", "lost", "repeated", "misdirected", "unknown", "sockets_closed",
)  # fmt: skip
#: These must be 0: each accepted prompt is pushed to its user, once.
FAULTS = ("lost", "repeated", "misdirected", "unknown", "sockets_closed", "503_without_retry_after")


def counts(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the counts of all turns."""
    summed: dict[str, Any] = {name: sum(turn[name] for turn in turns) for name in _COUNTS}
    answers: dict[str, int] = {}
    for turn in turns:
        for answer, count in turn["answers"].items():
            answers[answer] = answers.get(answer, 0) + count
    return {"answers": answers} | summed
