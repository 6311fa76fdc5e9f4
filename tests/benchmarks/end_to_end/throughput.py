"""How many prompts a second come back, and what each costs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.benchmarks.end_to_end.contender import Contender
from tests.benchmarks.end_to_end.contenders import Field, Turns, counts, ratios, spread
from tests.benchmarks.end_to_end.generator import Generator
from tests.benchmarks.end_to_end.parts import OTHERS, Meter, peak_rss_mib
from tests.benchmarks.end_to_end.scale import Scale

GENERATOR = "generator"
#: So many prompts are on their way at a time, for each connection.
_OUTSTANDING = 4
_LATENCIES = ("push_ms", "submit_ms")


def measure(taking_part: Field, scale: Scale) -> dict[str, Any]:
    """Each with as many connections as suit it best."""
    connections = {
        name: _best(contender, generator, scale) for name, (contender, generator) in taking_part.running.items()
    }

    def turn(name: str, contender: Contender, generator: Generator) -> dict[str, Any]:
        found = closed_loop(contender, generator, connections[name], scale.warm_up, scale.seconds)
        print(f"  {name}: {found['per_second']:,.0f} a second", flush=True)
        return found

    turns = taking_part.in_turns(scale.rounds, turn)
    return {
        name: figures(turns, name) | {"connections": connections[name]} for name, each in turns.of.items() if each
    } | {name: {"skipped": why} for name, why in taking_part.skipped.items() if not turns.of.get(name)}


def most_of_ours(taking_part: Field, scale: Scale) -> float | None:
    """How many prompts a second ours can do, by one closed loop. None if it does not take part."""
    if "ours" not in taking_part.running:
        return None
    contender, generator = taking_part.running["ours"]
    found = closed_loop(contender, generator, max(scale.connections), scale.warm_up, scale.seconds)
    return float(found["per_second"])


def _best(contender: Contender, generator: Generator, scale: Scale) -> int:
    """The number of connections with which most prompts come back, each tried for a moment."""
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
    """A phase of the load generator's, with prompts per second, CPU per prompt in ms and memory in MiB by part.

    `others_cores` is how many processors were kept busy meanwhile by what has nothing to do with it.
    """
    meter = Meter({**contender.parts, GENERATOR: [generator.pid]})
    outstanding = _OUTSTANDING * connections
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


def figures(turns: Turns, name: str) -> dict[str, Any]:
    """What the turns of one say together, and beside the others'."""
    own = turns.of[name]
    per_second = turns.values(name, _per_second)
    return {
        "per_second": spread(per_second, 1),
        "times_original": ratios(per_second, turns.values("original", _per_second)),
        "times_one_task_each": ratios(per_second, turns.values("one_task_each", _per_second)),
        "cpu_ms": _by_part([turn["cpu_ms"] for turn in own]),
        "cpu_ms_in_all": spread([_in_all(turn["cpu_ms"]) for turn in own if turn["cpu_ms"]], 3),
        "others_cores": spread([turn["others_cores"] for turn in own]),
        "peak_rss_mib": own[-1]["peak_rss_mib"],
        **{latency: latencies(own, latency) for latency in _LATENCIES},
        **counts(own),
    }


def latencies(turns: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Each quantile's median over the turns, and between what it lay."""
    measured = [turn[name] for turn in turns if turn[name]]
    return {quantile: spread([each[quantile] for each in measured]) for quantile in ("p50", "p90", "p99")}


def _per_second(turn: dict[str, Any]) -> float:
    return float(turn["per_second"])


def _in_all(cpu_ms: dict[str, float]) -> float:
    return sum(ms for part, ms in cpu_ms.items() if part != GENERATOR)


def _by_part(turns: Sequence[dict[str, float]]) -> dict[str, float]:
    return {
        part: round(float(np.median([turn[part] for turn in turns if turn])), 3)
        for part in dict.fromkeys(part for turn in turns for part in turn)
    }
