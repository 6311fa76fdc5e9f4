"""Throughput: prompts pushed per second, and the CPU cost of each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.benchmarks.end_to_end.contender import Contender
from tests.benchmarks.end_to_end.contenders import Lineup, Measurements, counts, ratios, spread
from tests.benchmarks.end_to_end.generator import Generator
from tests.benchmarks.end_to_end.resource_usage import OTHERS, Meter, peak_rss_mib
from tests.benchmarks.end_to_end.scale import Scale

GENERATOR = "generator"
#: Pending prompts per connection.
_OUTSTANDING_PER_CONNECTION = 4
_LATENCIES = ("push_ms", "submit_ms")


def measure(lineup: Lineup, scale: Scale) -> dict[str, Any]:
    """Measure each contender with the number of connections at which it is fastest."""
    connections = {name: _best(contender, generator, scale) for name, (contender, generator) in lineup.running.items()}

    def turn(name: str, contender: Contender, generator: Generator) -> dict[str, Any]:
        found = closed_loop(contender, generator, connections[name], scale.warm_up, scale.seconds)
        print(f"  {name}: {found['per_second']:,.0f} per second", flush=True)
        return found

    measurements = lineup.alternate(scale.rounds, turn)
    return {
        name: figures(measurements, name) | {"connections": connections[name]}
        for name, each in measurements.by_contender.items()
        if each
    } | {name: {"skipped": why} for name, why in lineup.skipped.items() if not measurements.by_contender.get(name)}


def our_max_rate(lineup: Lineup, scale: Scale) -> float | None:
    """Return how many prompts per second our service reaches in one closed loop. None if it does not take part."""
    if "ours" not in lineup.running:
        return None
    contender, generator = lineup.running["ours"]
    found = closed_loop(contender, generator, max(scale.connections), scale.warm_up, scale.seconds)
    return float(found["per_second"])


def _best(contender: Contender, generator: Generator, scale: Scale) -> int:
    """Return the number of connections with the highest throughput, after a short try of each."""
    if len(scale.connections) == 1:
        return scale.connections[0]
    found = {
        count: closed_loop(contender, generator, count, scale.warm_up, scale.seconds / 2)["per_second"]
        for count in scale.connections
    }
    return max(found, key=lambda count: found[count])


def closed_loop(
    contender: Contender, generator: Generator, connections: int, warm_up: float, seconds: float
) -> dict[str, Any]:
    """Run a closed-loop phase of the load generator. Add prompts per second, and by part CPU ms per prompt and MiB.

    `others_cores` is the number of cores that unrelated processes kept busy meanwhile.
    """
    meter = Meter({**contender.parts, GENERATOR: [generator.pid]})
    outstanding = _OUTSTANDING_PER_CONNECTION * connections
    found = generator.do(
        "closed", meter.on_edge, connections=connections, outstanding=outstanding, warm_up=warm_up, seconds=seconds
    )
    pushed = found["pushed_in_window"]
    spent = meter.seconds
    others = spent.pop(OTHERS)
    return found | {
        "per_second": pushed / found["seconds"],
        "cpu_ms": {part: each * 1e3 / pushed for part, each in spent.items()} if pushed else {},
        "others_cores": others / found["seconds"],
        "peak_rss_mib": peak_rss_mib(contender.parts),
    }


def figures(measurements: Measurements, name: str) -> dict[str, Any]:
    """Summarise the turns of one contender, also relative to the others."""
    own = measurements.by_contender[name]
    per_second = measurements.values(name, _per_second)
    return {
        "per_second": spread(per_second, 1),
        "times_original": ratios(per_second, measurements.values("original", _per_second)),
        "times_one_task_each": ratios(per_second, measurements.values("one_task_each", _per_second)),
        "cpu_ms": _medians_by_part([turn["cpu_ms"] for turn in own]),
        "cpu_ms_in_all": spread([_in_total(turn["cpu_ms"]) for turn in own if turn["cpu_ms"]], 3),
        "others_cores": spread([turn["others_cores"] for turn in own]),
        "peak_rss_mib": own[-1]["peak_rss_mib"],
        **{latency: latencies(own, latency) for latency in _LATENCIES},
        **counts(own),
    }


def latencies(turns: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return each quantile's median, minimum and maximum over the turns."""
    measured = [turn[name] for turn in turns if turn[name]]
    return {quantile: spread([each[quantile] for each in measured]) for quantile in ("p50", "p90", "p99")}


def _per_second(turn: dict[str, Any]) -> float:
    return float(turn["per_second"])


def _in_total(cpu_ms: dict[str, float]) -> float:
    return sum(ms for part, ms in cpu_ms.items() if part != GENERATOR)


def _medians_by_part(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        part: round(float(np.median([turn[part] for turn in turns if turn])), 3)
        for part in dict.fromkeys(part for turn in turns for part in turn)
    }
