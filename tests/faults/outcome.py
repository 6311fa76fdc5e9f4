"""What a scenario has counted, and the table of all of them."""

from dataclasses import dataclass, field


@dataclass
class Outcome:
    """The counts of one scenario. What must be 0 is in `BROKEN_PROMISES`."""

    scenario: str
    date: str = ""
    faults: int = 0
    accepted: int = 0
    completed: int = 0
    cancelled: int = 0
    #: Ended as failed, visibly. `failed_needlessly` are those that were not meant to.
    failed: int = 0
    failed_needlessly: int = 0
    #: Cancelled with success, and something else in the end.
    revived: int = 0
    #: Ended or stored more than once.
    twice: int = 0
    #: Accepted, and without an end.
    lost: int = 0
    missed: int = 0
    repeated: int = 0
    #: Searches whose results are other than those computed anew from Postgres.
    differing: int = 0
    #: Requests by what they were answered, or how they failed (see `load._failure`).
    answers: dict[str, int] = field(default_factory=dict)
    #: The 99th percentile of how long each kind of request took.
    p99_seconds: dict[str, float] = field(default_factory=dict)
    #: From each fault, or from its end, until what it held up goes on; the scenario says what that is.
    recoveries: list[float] = field(default_factory=list)
    seconds: float = 0.0
    #: What else the scenario found out.
    notes: str = ""
    #: Promises other than the counts that were not kept.
    breaches: list[str] = field(default_factory=list)
    #: Bounds on time that were not kept: `make faults` fails on them, tests do not.
    late: list[str] = field(default_factory=list)

    @property
    def slowest_recovery(self) -> float:
        return max(self.recoveries, default=0.0)

    def require(self, holds: bool, what: str) -> None:
        """Notes a breach of what must hold."""
        if not holds:
            self.breaches.append(what)

    def bound(self, seconds: float, limit: float, what: str) -> None:
        """Notes what took longer than is promised."""
        if seconds > limit:
            self.late.append(f"{what}: {seconds:.2f} s, promised {limit:g} s")

    def broken_promises(self) -> list[str]:
        """The counts that must be 0 and are not, and the breaches."""
        counts = {name: getattr(self, name) for name in BROKEN_PROMISES}
        return [f"{name}: {count}" for name, count in counts.items() if count] + self.breaches


BROKEN_PROMISES = ("twice", "lost", "revived", "missed", "repeated", "differing", "failed_needlessly")

_COLUMNS = ("scenario", "faults", "accepted", "completed", "cancelled", "failed", *BROKEN_PROMISES[:-1])


def table(outcomes: list[Outcome]) -> str:
    """A Markdown table, which is plain text too."""
    heads = [*_COLUMNS, "recovery", "p99", "notes"]
    rows = [
        [
            *(str(getattr(outcome, name)) for name in _COLUMNS),
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
