"""How long after it was due a prompt's answer is pushed."""

from typing import Any

from tests.benchmarks.end_to_end.contender import Contender
from tests.benchmarks.end_to_end.contenders import Field, counts, ratios
from tests.benchmarks.end_to_end.generator import Generator
from tests.benchmarks.end_to_end.scale import Scale
from tests.benchmarks.end_to_end.throughput import latencies

QUIET_RATE = 20
SHARE_OF_THE_MOST = 0.7
_LATENCIES = ("push_ms", "submit_ms", "late_ms")


def measure(taking_part: Field, scale: Scale, most: float | None) -> dict[str, Any]:
    """At a quiet rate, all; ours at a share of the most that it can do, too, if it takes part."""
    quiet = _at(taking_part, scale, QUIET_RATE)
    if most is None or "ours" not in taking_part.running:
        return {"quiet": quiet}
    alone = Field({"ours": taking_part.running["ours"]})
    return {"quiet": quiet, "busy": _at(alone, scale, SHARE_OF_THE_MOST * most)}


def _at(taking_part: Field, scale: Scale, rate: float) -> dict[str, Any]:
    def turn(name: str, _: Contender, generator: Generator) -> dict[str, Any]:
        found = generator.do("open", rate=rate, warm_up=scale.warm_up, seconds=scale.latency_seconds)
        if found["push_ms"]:
            print(f"  {name} at {rate:,.0f} a second: {found['push_ms']['p50']} ms", flush=True)
        return found

    turns = taking_part.in_turns(scale.rounds, turn)

    def medians(name: str) -> list[float]:
        return turns.values(name, lambda each: each["push_ms"] and each["push_ms"]["p50"])

    return {
        name: {latency: latencies(each, latency) for latency in _LATENCIES}
        | {"rate": round(rate, 1), "times_original": ratios(medians(name), medians("original"))}
        | counts(each)
        for name, each in turns.of.items()
        if each
    } | {name: {"skipped": why} for name, why in taking_part.skipped.items() if not turns.of.get(name)}
