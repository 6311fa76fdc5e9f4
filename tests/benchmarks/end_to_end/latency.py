"""Latency: how long after it was due a prompt's answer is pushed."""

from typing import Any

from tests.benchmarks.end_to_end.contender import Contender
from tests.benchmarks.end_to_end.contenders import Lineup, counts, ratios
from tests.benchmarks.end_to_end.generator import Generator
from tests.benchmarks.end_to_end.scale import Scale
from tests.benchmarks.end_to_end.throughput import latencies

QUIET_RATE = 20
SHARE_OF_MAX = 0.7
_LATENCIES = ("push_ms", "submit_ms", "late_ms")


def measure(lineup: Lineup, scale: Scale, max_rate: float | None) -> dict[str, Any]:
    """Measure all contenders at a quiet rate, and ours also at a share of its maximum rate."""
    quiet = _at(lineup, scale, QUIET_RATE)
    if max_rate is None or "ours" not in lineup.running:
        return {"quiet": quiet}
    alone = Lineup({"ours": lineup.running["ours"]})
    return {"quiet": quiet, "busy": _at(alone, scale, SHARE_OF_MAX * max_rate)}


def _at(lineup: Lineup, scale: Scale, rate: float) -> dict[str, Any]:
    def turn(name: str, _: Contender, generator: Generator) -> dict[str, Any]:
        found = generator.do("open", rate=rate, warm_up=scale.warm_up, seconds=scale.latency_seconds)
        if found["push_ms"]:
            print(f"  {name} at {rate:,.0f} per second: {found['push_ms']['p50']} ms", flush=True)
        return found

    measurements = lineup.alternate(scale.rounds, turn)

    def medians(name: str) -> list[float]:
        return measurements.values(name, lambda each: each["push_ms"] and each["push_ms"]["p50"])

    return {
        name: {latency: latencies(each, latency) for latency in _LATENCIES}
        | {"rate": round(rate, 1), "times_original": ratios(medians(name), medians("original"))}
        | counts(each)
        for name, each in measurements.by_contender.items()
        if each
    } | {name: {"skipped": why} for name, why in lineup.skipped.items() if not measurements.by_contender.get(name)}
