"""The plot: throughput, CPU per prompt, and how both scale."""

from pathlib import Path
from typing import Any

from tests.benchmarks.end_to_end.latency import SHARE_OF_MAX
from tests.benchmarks.end_to_end.scalability import knee, measured
from tests.benchmarks.end_to_end.targets import Results
from tests.benchmarks.reporting import pyplot

_PARTS = ("api", "worker", "valkey", "postgres")


def draw(results: Results, path: Path) -> None:
    drawing = pyplot()
    if drawing is None:
        return
    scalability_axes = results.get("scalability", {}).get("axes", {})
    figure, panels = drawing.subplots(2, 4, figsize=(17, 8))
    figure.delaxes(panels[1][3])
    throughput = {name: row for name, row in results.get("throughput", {}).items() if "skipped" not in row}
    _per_second(panels[0][0], throughput)
    _cpu(panels[0][1], throughput)
    for panel, (axis, points) in zip([*panels[0][2:], *panels[1][:3]], scalability_axes.items(), strict=False):
        _scalability(panel, axis, points)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    drawing.close(figure)


def _per_second(panel: Any, rows: Results) -> None:
    medians = [row["per_second"]["median"] for row in rows.values()]
    below = [row["per_second"]["median"] - row["per_second"]["min"] for row in rows.values()]
    above = [row["per_second"]["max"] - row["per_second"]["median"] for row in rows.values()]
    panel.bar(list(rows), medians, yerr=[below, above], capsize=4)
    panel.set_title("prompts pushed per second")
    panel.tick_params(axis="x", rotation=20)


def _cpu(panel: Any, rows: Results) -> None:
    bottom = [0.0] * len(rows)
    for part in _PARTS:
        heights = [row["cpu_ms"].get(part, 0.0) for row in rows.values()]
        panel.bar(list(rows), heights, bottom=bottom, label=part)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    panel.set_title("CPU per prompt, ms")
    panel.tick_params(axis="x", rotation=20)
    panel.legend(fontsize=8)


def _scalability(panel: Any, axis: str, points: list[dict[str, Any]]) -> None:
    points = measured(points)
    at = [point["at"] for point in points]
    panel.plot(at, [point["per_second"] for point in points], marker="o", color="C0")
    panel.set(title=f"ours, by {axis}", xlabel=axis, ylim=(0, None))
    panel.set_ylabel("prompts per second", color="C0")
    at_knee = knee(points)
    if at_knee is not None:
        panel.axvline(at_knee["at"], color="0.6", linestyle=":")
        panel.annotate("knee ", (at_knee["at"], 0), fontsize=8, color="0.4", ha="right")
    if at and max(at) >= 10 * min(at):
        panel.set_xscale("log")
    else:
        panel.set_xticks(at)
    latency_axis = panel.twinx()
    latency_axis.plot(at, [point["push_p99_ms"] for point in points], marker="s", color="C3", linestyle="--")
    latency_axis.set_ylabel(f"push p99 at {SHARE_OF_MAX:.0%} of that, ms", color="C3")
    latency_axis.set_ylim(0, None)
