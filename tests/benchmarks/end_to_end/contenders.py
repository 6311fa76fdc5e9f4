"""Who takes part, and their turns."""

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

PEERS = ("original", "taskiq_fastapi", "one_task_each")
USERS = 200


@dataclass
class Field:
    """Those who run, each with its load generator; and why the others do not."""

    running: dict[str, tuple[Contender, Generator]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def in_turns(self, rounds: int, turn: Callable[[str, Contender, Generator], dict[str, Any]]) -> "Turns":
        """Has each its turn in each round; each round another begins. One that dies is out from then on."""
        turns = Turns({name: [] for name in self.running})
        for number in range(rounds):
            for name in rotated(list(self.running), number):
                contender, generator = self.running[name]
                try:
                    turns.of[name].append(turn(name, contender, generator))
                except (psutil.NoSuchProcess, RuntimeError) as error:
                    print(f"  {name} is out: {error}", flush=True)
                    self.skipped[name] = f"it died in round {number + 1}"
                    del self.running[name]
        return turns


@dataclass
class Turns:
    """What each turn has given, by contender. A contender that has died lacks some."""

    of: dict[str, list[dict[str, Any]]]

    def values(self, name: str, figure: Callable[[dict[str, Any]], float | None]) -> list[float]:
        return [value for turn in self.of.get(name, []) if (value := figure(turn)) is not None]


@contextlib.contextmanager
def contenders(servers: Servers, names: Sequence[str]) -> Iterator[Field]:
    """Starts those of them that can run here."""
    with contextlib.ExitStack() as stack:
        taking_part = Field()
        for name in names:
            try:
                serve = ours.serve if name == "ours" else import_module(f"tests.benchmarks.peers.{name}.serve").serve
                contender = stack.enter_context(serve(servers, USERS))
            except (ImportError, NotInstalledError) as error:
                taking_part.skipped[name] = str(error)
                print(f"  {name} is skipped: {error}", flush=True)
            else:
                taking_part.running[name] = (contender, stack.enter_context(users_of(contender)))
        yield taking_part


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The same order, with another one at its head."""
    at = by % max(len(names), 1)
    return [*names[at:], *names[:at]]


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float] | None:
    """The median, and between what the values lie."""
    if not values:
        return None
    named = {"median": np.median(values), "min": min(values), "max": max(values)}
    return {name: round(float(value), digits) for name, value in named.items()}


def ratios(values: Sequence[float], others: Sequence[float]) -> dict[str, float] | None:
    """How many times as much the values are as those of the same round."""
    return spread([a / b for a, b in zip(values, others, strict=False) if b])


_COUNTS = (
    "sent", "accepted", "503_without_retry_after", "lost", "repeated", "misdirected", "unknown", "sockets_closed",
)  # fmt: skip
#: These must be 0: each accepted prompt is pushed to its user, once.
FAULTS = ("lost", "repeated", "misdirected", "unknown", "sockets_closed", "503_without_retry_after")


def counts(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What happened in all turns together."""
    summed: dict[str, Any] = {name: sum(turn[name] for turn in turns) for name in _COUNTS}
    answers: dict[str, int] = {}
    for turn in turns:
        for answer, count in turn["answers"].items():
            answers[answer] = answers.get(answer, 0) + count
    return {"answers": answers} | summed
