"""Figures: how long calls take, measured in turns so that whatever else the machine does hits all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from tests.benchmarks.cpu import Cpu, of_this_process

#: Calls a turn that are not counted: they bring back into the caches what the others' turn pushed out.
WARM_UP = 3
#: A turn ends after so many calls or seconds, but not before LEAST calls.
CALLS = 60
SECONDS = 1.0
LEAST = 5


#: The machine is quiet if its processors are busy to less than this share, in percent, with nothing of ours to do.
QUIET_PERCENT = 12.0


@dataclass
class Turns:
    """How often all have their turn, and how long is waited in all for others to leave the machine alone.

    What others do there is in the figures, however fairly it is spread: a search that asks Postgres waits for a
    processor at each hop, one in the process does not.
    """

    rounds: int
    patience: float = 0.0  #: in seconds
    busy: list[float] = field(default_factory=list)  #: the percentages that were seen before rounds

    def begin(self) -> None:
        """Waits for a quiet moment, if there is patience left."""
        while (busy := psutil.cpu_percent(interval=0.5)) > QUIET_PERCENT and self.patience > 0:
            self.patience -= 0.5
        self.busy.append(busy)


@dataclass
class Times:
    """How long calls took, and how long they kept a processor busy: in seconds, by turn."""

    turns: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  #: a call, the mean of each turn

    @property
    def all(self) -> list[float]:
        return [each for turn in self.turns for each in turn]

    @property
    def medians(self) -> list[float]:
        return [float(np.median(turn)) for turn in self.turns]

    def figures(self) -> dict[str, float]:
        """In milliseconds: the median of the turns' medians, percentiles of all, CPU; and calls a second."""
        taken = self.all
        return {
            "p50_ms": round(float(np.median(self.medians)) * 1e3, 4),
            "p10_ms": round(float(np.quantile(taken, 0.1)) * 1e3, 4),
            "p99_ms": round(float(np.quantile(taken, 0.99)) * 1e3, 4),
            "cpu_ms": round(float(np.median(self.cpu)) * 1e3, 4),
            "per_second": round(len(taken) / sum(taken), 1),
            "calls": len(taken),
        }

    def ratios(self, ours: "Times") -> dict[str, float]:
        """How many times as long as ours these took: the median over rounds, each compared with ours of that round."""
        return {
            "times_ours": round(float(np.median(np.divide(self.medians, ours.medians))), 2),
            "cpu_times_ours": round(float(np.median(np.divide(self.cpu, ours.cpu))), 2),
        }


def in_turns(
    calls: Mapping[str, Callable[[int], Any]],
    turns: Turns,
    *,
    on_result: Callable[[str, int, Any], None],
    cpu: Mapping[str, Cpu] | Cpu = of_this_process,
    before: Callable[[], object] = lambda: None,
) -> dict[str, Times]:
    """Times these calls, one after the other, in each round. Each is given ever other numbers from 0 on.

    Args:
        on_result: Is told which call, with which number, returned what, after the turn.
        cpu: Seconds of CPU so far, of whoever works for the call; for each its own, if it is a mapping.
        before: Is called before each round.
    """
    times = {name: Times() for name in calls}
    numbers = dict.fromkeys(calls, 0)
    for _ in range(turns.rounds):
        turns.begin()
        before()
        for name, call in calls.items():
            taken, results, busy = _turn(call, numbers[name], cpu[name] if isinstance(cpu, Mapping) else cpu)
            for offset, result in enumerate(results):
                on_result(name, numbers[name] + offset, result)
            numbers[name] += len(results)
            times[name].turns.append(taken[WARM_UP:])
            times[name].cpu.append(busy / len(taken))
    return times


def _turn(call: Callable[[int], Any], first: int, cpu: Cpu) -> tuple[list[float], list[Any], float]:
    taken: list[float] = []
    results: list[Any] = []
    before, begun = cpu(), time.perf_counter()
    while len(taken) < WARM_UP + CALLS:
        if len(taken) >= WARM_UP + LEAST and time.perf_counter() - begun > SECONDS:
            break
        start = time.perf_counter()
        result = call(first + len(taken))
        taken.append(time.perf_counter() - start)
        results.append(result)
    return taken, results, cpu() - before


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long it took, in seconds, and what it returned."""
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def median(values: Sequence[float]) -> float:
    return float(np.median(values))
