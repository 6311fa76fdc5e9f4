"""What the service is asked to reach, and whether it does; and what must never happen."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.benchmarks.end_to_end.contenders import FAULTS
from tests.benchmarks.end_to_end.latency import QUIET_RATE, SHARE_OF_THE_MOST

Results = dict[str, Any]

_ASKED: dict[str, tuple[Callable[[Results], float], Callable[[float], bool], str]] = {
    "prompts a second, times the original's": (
        lambda results: results["throughput"]["ours"]["times_original"]["median"],
        lambda found: found >= 10,
        "at least 10",
    ),
    "prompts a second, times those of one task for each": (
        lambda results: results["throughput"]["ours"]["times_one_task_each"]["median"],
        lambda found: found >= 2,
        "at least 2",
    ),
    "CPU of a prompt in all processes, ms": (
        lambda results: results["throughput"]["ours"]["cpu_ms_in_all"]["median"],
        lambda found: found <= 1.2,
        "at most 1.2",
    ),
    f"push p50 at {QUIET_RATE} a second, times the original's": (
        lambda results: results["latency"]["quiet"]["ours"]["times_original"]["median"],
        lambda found: found <= 0.5,
        "at most 0.5",
    ),
    f"push p99 at {SHARE_OF_THE_MOST:.0%} of the most, ms": (
        lambda results: results["latency"]["busy"]["ours"]["push_ms"]["p99"]["median"],
        lambda found: found < 50,
        "below 50",
    ),
}


def verdicts(results: Results) -> dict[str, dict[str, Any]]:
    """Of each figure what was asked, what was found, and whether that will do. Unmeasured ones are left open."""
    rows = {}
    for name, (figure, will_do, asked) in _ASKED.items():
        try:
            found = figure(results)
        except (KeyError, TypeError):
            rows[name] = {"asked": asked, "met": "not measured"}
        else:
            rows[name] = {"asked": asked, "found": found, "met": "yes" if will_do(found) else "NO"}
    return rows


def faults(results: Results) -> dict[str, list[str]]:
    """What must not happen and did, by contender: an accepted prompt is pushed to its user, once."""
    found: dict[str, list[str]] = {}
    for name, where, row in _rows(results):
        for fault in FAULTS:
            if row.get(fault):
                found.setdefault(name, []).append(f"{where}: {fault} {row[fault]}")
    return found


def _rows(results: Results) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Contender, section, figures."""
    for name, row in results.get("throughput", {}).items():
        yield name, "throughput", row
    for pace, rows in results.get("latency", {}).items():
        for name, row in rows.items():
            yield name, f"latency, {pace}", row
    if "overload" in results:
        yield "ours", "overload", results["overload"]
    for axis, points in results.get("growth", {}).get("axes", {}).items():
        for point in points:
            yield "ours", f"growth, {point['at']} {axis}", point.get("faults", {})
