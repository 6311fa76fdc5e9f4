"""The counts of a scenario, and the table of all scenarios."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar


@dataclass
class Outcome:
    """The counts of one scenario. Those in `promises` must be 0."""

    promises: ClassVar[tuple[str, ...]] = (
        "twice",
        "lost",
        "revived",
        "missed",
        "repeated",
        "differing",
        "failed_needlessly",
    )

    scenario: str
    date: str = ""
    faults: int = 0
    accepted: int = 0
    completed: int = 0
    cancelled: int = 0
    #: Visibly failed. `failed_needlessly` counts those that should not have failed.
    failed: int = 0
    failed_needlessly: int = 0
    #: Successfully cancelled, but with another status in the end.
    revived: int = 0
    #: Finished or stored more than once.
    twice: int = 0
    #: Accepted, but never finished.
    lost: int = 0
    missed: int = 0
    repeated: int = 0
    #: Searches whose results differ from an exact search over the rows in Postgres.
    differing: int = 0
    #: Requests by status, or by how they failed (see `load._failure`).
    answers: dict[str, int] = field(default_factory=dict)
    #: The 99th percentile of the duration of each kind of request.
    p99_seconds: dict[str, float] = field(default_factory=dict)
    #: Seconds from each fault, or from its end, until the service has recovered. The scenario defines both moments.
    recoveries: list[float] = field(default_factory=list)
    seconds: float = 0.0
    #: Further findings of the scenario.
    notes: str = ""
    #: Broken promises other than the counts.
    breaches: list[str] = field(default_factory=list)
    #: Exceeded time bounds: `make faults` fails on them, tests do not.
    late: list[str] = field(default_factory=list)

    @property
    def slowest_recovery(self) -> float:
        return max(self.recoveries, default=0.0)

    def require(self, holds: bool, what: str) -> None:
        """Record a breach if the condition does not hold."""
        if not holds:
            self.breaches.append(what)

    def bound(self, seconds: float, limit: float, what: str) -> None:
        """Record a late operation if it took longer than promised."""
        if seconds > limit:
            self.late.append(f"{what}: {seconds:.2f} s, promised {limit:g} s")

    def broken_promises(self) -> list[str]:
        """Return the counts that should be 0 but are not, and the breaches."""
        counts = {name: getattr(self, name) for name in self.promises}
        return [f"{name}: {count}" for name, count in counts.items() if count] + self.breaches


_COLUMNS = ("scenario", "faults", "accepted", "completed", "cancelled", "failed")


def table(outcomes: Sequence[Outcome]) -> str:
    """Format the outcomes, all of the same class, as a Markdown table that is also readable as plain text."""
    promises = outcomes[0].promises if outcomes else Outcome.promises
    columns = (*_COLUMNS, *(name for name in promises if name != "failed_needlessly"))
    heads = [*columns, "recovery", "p99", "notes"]
    rows = [
        [
            *(str(getattr(outcome, name)) for name in columns),
            f"{outcome.slowest_recovery:.1f} s" if outcome.recoveries else "",
            f"{max(outcome.p99_seconds.values(), default=0.0):.2f} s",
            outcome.notes,
        ]
        for outcome in outcomes
    ]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = [heads, ["-" * width for width in widths], *rows]
    return "".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |\n" for line in lines
    )
