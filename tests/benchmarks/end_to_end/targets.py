"""The targets of the service, whether it meets them, and violations of its promises."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.benchmarks.end_to_end.api_keys import WITH_KEY
from tests.benchmarks.end_to_end.contenders import FAULTS
from tests.benchmarks.end_to_end.latency import QUIET_RATE, SHARE_OF_MAX

Results = dict[str, Any]

_TARGETS: dict[str, tuple[Callable[[Results], float], Callable[[float], bool], str]] = {
    "prompts per second, relative to the original": (
        lambda results: results["throughput"]["ours"]["times_original"]["median"],
        lambda measured: measured >= 15,
        "at least 15",
    ),
    "prompts per second, relative to one task each": (
        lambda results: results["throughput"]["ours"]["times_one_task_each"]["median"],
        lambda measured: measured >= 5,
        "at least 5",
    ),
    "CPU per prompt in all processes, ms": (
        lambda results: results["throughput"]["ours"]["cpu_ms_in_all"]["median"],
        lambda measured: measured <= 0.9,
        "at most 0.9",
    ),
    f"push p50 at {QUIET_RATE} per second, relative to the fastest other": (
        lambda results: _relative_to_fastest(results["latency"]["quiet"]),
        lambda measured: measured <= 1,
        "at most 1",
    ),
    f"push p99 at {SHARE_OF_MAX:.0%} of the maximum rate, ms": (
        lambda results: results["latency"]["busy"]["ours"]["push_ms"]["p99"]["median"],
        lambda measured: measured < 50,
        "below 50",
    ),
    "pushed at three times the possible rate, share of it": (
        lambda results: round(results["overload"]["per_second"] / results["overload"]["sustainable"], 2),
        lambda measured: measured >= 0.7,
        "at least 0.7",
    ),
    "response p99 at three times the possible rate, ms": (
        lambda results: results["overload"]["submit_ms"]["p99"],
        lambda measured: measured < 1_000,
        "below 1,000",
    ),
    "CPU of a submission with an API key, relative to a token": (
        lambda results: results["api_keys"][WITH_KEY]["times_token"]["median"],
        lambda measured: measured <= 1.05,
        "at most 1.05",
    ),
}


def _relative_to_fastest(latencies: Results) -> float:
    """Our median push, divided by that of the fastest other contender."""
    medians = {name: row["push_ms"]["p50"]["median"] for name, row in latencies.items() if "push_ms" in row}
    return round(float(medians.pop("ours") / min(medians.values())), 2)


def verdicts(results: Results) -> dict[str, dict[str, Any]]:
    """Return each figure's target, its measured value if there is one, and whether it meets the target."""
    rows = {}
    for name, (figure, is_met, target) in _TARGETS.items():
        try:
            measured = figure(results)
        except (KeyError, TypeError, ValueError):  # the last if no other contender was measured
            rows[name] = {"target": target, "met": "not measured"}
        else:
            rows[name] = {"target": target, "measured": measured, "met": "yes" if is_met(measured) else "NO"}
    return rows


def faults(results: Results) -> dict[str, list[str]]:
    """Return the violations by contender: each accepted prompt must be pushed to its user exactly once."""
    found: dict[str, list[str]] = {}
    for name, where, row in _rows(results):
        for fault in FAULTS:
            if row.get(fault):
                found.setdefault(name, []).append(f"{where}: {fault} {row[fault]}")
    return found


def _rows(results: Results) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the contender, the section and the figures of each row."""
    for name, row in results.get("throughput", {}).items():
        yield name, "throughput", row
    for pace, rows in results.get("latency", {}).items():
        for name, row in rows.items():
            yield name, f"latency, {pace}", row
    if "overload" in results:
        yield "ours", "overload", results["overload"]
    for axis, points in results.get("scalability", {}).get("axes", {}).items():
        for point in points:
            yield "ours", f"scalability, {point['at']} {axis}", point.get("faults", {})
