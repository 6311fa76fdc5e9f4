"""Measures how long calls take, in alternating turns, so that other load on the machine affects all alike."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil

from tests.benchmarks.cpu import Cpu, of_this_process

#: The first calls of a turn are not counted: they refill the caches after the other contenders' turns.
WARM_UP_CALLS = 3
#: A turn ends after this many calls or seconds, but not before MIN_CALLS.
MAX_CALLS = 60
MAX_SECONDS = 1.0
MIN_CALLS = 5


#: The machine counts as idle below this load, in percent, while the benchmark does nothing.
IDLE_PERCENT = 12.0


@dataclass
class Turns:
    """The number of rounds, and the total time to wait for other processes to leave the machine idle.

    Other load affects the figures even if it is spread evenly: a search that asks Postgres waits for a processor at
    each hop, and one in the process does not.
    """

    rounds: int
    idle_wait: float = 0.0  #: the remaining time to wait, in seconds
    busy: list[float] = field(default_factory=list)  #: the load before each round, in percent

    def begin(self) -> None:
        """Wait until the machine is idle, while there is time left to wait."""
        while (busy := psutil.cpu_percent(interval=0.5)) > IDLE_PERCENT and self.idle_wait > 0:
            self.idle_wait -= 0.5
        self.busy.append(busy)


@dataclass
class Times:
    """The times of calls and their CPU times, in seconds, by turn."""

    turns: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  #: per call, the mean of each turn

    @property
    def all(self) -> list[float]:
        return [each for turn in self.turns for each in turn]

    @property
    def medians(self) -> list[float]:
        return [float(np.median(turn)) for turn in self.turns]

    def figures(self) -> dict[str, float]:
        """Return the median of the turns' medians, percentiles and CPU time, in milliseconds; and calls per second."""
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
        """Return how many times as long as ours these took: the median of the rounds' ratios."""
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
    """Time these calls, one after the other in each round. Each call gets consecutive numbers, from 0.

    Args:
        on_result: Called after the turn with the call's name, number and result.
        cpu: Returns the CPU seconds so far of all processes that work for the call; a mapping has one for each call.
        before: Called before each round.
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
            times[name].turns.append(taken[WARM_UP_CALLS:])
            times[name].cpu.append(busy / len(taken))
    return times


def _turn(call: Callable[[int], Any], first: int, cpu: Cpu) -> tuple[list[float], list[Any], float]:
    taken: list[float] = []
    results: list[Any] = []
    before, started = cpu(), time.perf_counter()
    while len(taken) < WARM_UP_CALLS + MAX_CALLS:
        if len(taken) >= WARM_UP_CALLS + MIN_CALLS and time.perf_counter() - started > MAX_SECONDS:
            break
        start = time.perf_counter()
        result = call(first + len(taken))
        taken.append(time.perf_counter() - start)
        results.append(result)
    return taken, results, cpu() - before


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Call a function. Returns the time in seconds and its result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def median(values: Sequence[float]) -> float:
    return float(np.median(values))
