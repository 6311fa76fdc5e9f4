"""The measurements of one attack, and the table of all."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.faults.neighbours.stack import Memory

_NONE = Memory(0, 0)


class Polls(NamedTuple):
    """The neighbour's polls of a period, in seconds."""

    count: int
    p50: float
    p99: float
    slowest: float

    @classmethod
    def measure(cls, seconds: Sequence[float]) -> "Polls | None":
        """The measurement of these polls; None without any."""
        if len(seconds) < 2:
            return cls(1, seconds[0], seconds[0], seconds[0]) if seconds else None
        percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
        return cls(len(seconds), percentiles[49], percentiles[98], max(seconds))

    def __str__(self) -> str:
        return " / ".join(f"{1000 * seconds:.0f}" for seconds in (self.p50, self.p99, self.slowest))


@dataclass
class Measurement:
    """What an attack cost the neighbour, and the service."""

    attack: str
    date: str = ""
    before: Polls | None = None
    during: Polls | None = None
    after: Polls | None = None
    #: Prompts that the neighbour submitted during the attack, and seconds until each was answered.
    prompts: int = 0
    slowest_answer: float = 0.0
    memory_before: Memory = _NONE
    memory_peak: Memory = _NONE
    memory_after: Memory = _NONE
    lost_processes: int = 0
    notes: list[str] = field(default_factory=list)
    #: Broken promises.
    breaches: list[str] = field(default_factory=list)
    #: Exceeded bounds of the long form: `make faults` fails on them, tests do not.
    late: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Measurement":
        """Read what `asdict` and JSON made of it."""
        polls = {name: row[name] and Polls(*row[name]) for name in ("before", "during", "after")}
        memory = {name: Memory(*row[name]) for name in ("memory_before", "memory_peak", "memory_after")}
        return cls(**(row | polls | memory))

    def require(self, holds: bool, what: str) -> None:
        """Record a breach if the condition does not hold."""
        if not holds:
            self.breaches.append(what)

    def bound(self, value: float, limit: float, what: str) -> None:
        """Record what is over its limit."""
        if value > limit:
            self.late.append(f"{what}: {value:.3g}, promised {limit:g}")


_HEADS = ["attack", "before", "during", "after", "answered", "API", "worker", "lost", "what happened"]


def table(measurements: Sequence[Measurement]) -> str:
    """Format the measurements as a Markdown table that is also readable as plain text."""
    rows = [_row(each) for each in measurements]
    widths = [max(len(row[i]) for row in [_HEADS, *rows]) for i in range(len(_HEADS))]
    lines = [_HEADS, ["-" * width for width in widths], *rows]
    return "".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |\n" for line in lines
    )


def _row(each: Measurement) -> list[str]:
    memory = zip(each.memory_before, each.memory_peak, each.memory_after, strict=True)
    return [
        each.attack,
        *(str(polls or "") for polls in (each.before, each.during, each.after)),
        f"{each.slowest_answer:.2f} s",
        *(" / ".join(map(str, values)) for values in memory),
        str(each.lost_processes),
        ", ".join(each.notes),
    ]
