"""The plot: who does how much, what a prompt costs, and how that grows."""

from pathlib import Path
from typing import Any

from tests.benchmarks.end_to_end.asked import Results
from tests.benchmarks.end_to_end.growth import knee, measured
from tests.benchmarks.end_to_end.latency import SHARE_OF_THE_MOST
from tests.benchmarks.reporting import pyplot

_PARTS = ("api", "worker", "valkey", "postgres")


def draw(results: Results, path: Path) -> None:
    drawing = pyplot()
    if drawing is None:
        return
    axes_of_growth = results.get("growth", {}).get("axes", {})
    figure, panels = drawing.subplots(2, 4, figsize=(17, 8))
    figure.delaxes(panels[1][3])
    throughput = {name: row for name, row in results.get("throughput", {}).items() if "skipped" not in row}
    _per_second(panels[0][0], throughput)
    _cpu(panels[0][1], throughput)
    for panel, (axis, points) in zip([*panels[0][2:], *panels[1][:3]], axes_of_growth.items(), strict=False):
        _growth(panel, axis, points)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    drawing.close(figure)


def _per_second(panel: Any, rows: Results) -> None:
    medians = [row["per_second"]["median"] for row in rows.values()]
    below = [row["per_second"]["median"] - row["per_second"]["min"] for row in rows.values()]
    above = [row["per_second"]["max"] - row["per_second"]["median"] for row in rows.values()]
    panel.bar(list(rows), medians, yerr=[below, above], capsize=4)
    panel.set_title("prompts pushed a second")
    panel.tick_params(axis="x", rotation=20)


def _cpu(panel: Any, rows: Results) -> None:
    bottom = [0.0] * len(rows)
    for part in _PARTS:
        heights = [row["cpu_ms"].get(part, 0.0) for row in rows.values()]
        panel.bar(list(rows), heights, bottom=bottom, label=part)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    panel.set_title("CPU of a prompt, ms")
    panel.tick_params(axis="x", rotation=20)
    panel.legend(fontsize=8)


def _growth(panel: Any, axis: str, points: list[dict[str, Any]]) -> None:
    points = measured(points)
    at = [point["at"] for point in points]
    panel.plot(at, [point["per_second"] for point in points], marker="o", color="C0")
    panel.set(title=f"ours, by {axis}", xlabel=axis, ylim=(0, None))
    panel.set_ylabel("prompts a second", color="C0")
    bend = knee(points)
    if bend is not None:
        panel.axvline(bend["at"], color="0.6", linestyle=":")
        panel.annotate("knee ", (bend["at"], 0), fontsize=8, color="0.4", ha="right")
    if at and max(at) >= 10 * min(at):
        panel.set_xscale("log")
    else:
        panel.set_xticks(at)
    beside = panel.twinx()
    beside.plot(at, [point["push_p99_ms"] for point in points], marker="s", color="C3", linestyle="--")
    beside.set_ylabel(f"push p99 at {SHARE_OF_THE_MOST:.0%} of that, ms", color="C3")
    beside.set_ylim(0, None)
