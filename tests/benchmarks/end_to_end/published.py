"""The figures of results.json as the documentation has them.

`publish` replaces the old ones in the pages, and `tests/unit/test_bench_figures.py` compares pages and results.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.end_to_end.latency import SHARE_OF_MAX
from tests.benchmarks.end_to_end.quarters import API_AXIS, SHARED_API_AXIS, WORKER_AXIS
from tests.benchmarks.end_to_end.targets import Results
from tests.support.servers import ROOT

#: How the documentation names the contenders.
_NAMES = {
    "ours": "Promptwire",
    "taskiq_fastapi": "FastAPI, taskiq, asyncpg",
    "procrastinate_fastapi": "FastAPI, procrastinate (PostgreSQL is the queue)",
    "dramatiq_flask": "Flask, Dramatiq, a message for each prompt",
    "one_task_each": "Flask, Celery, a task for each prompt, tuned",
    "original": "Django, Channels, answered within the request",
}
_PARTS = ("api", "worker", "valkey", "postgres")


def headline(results: Results) -> str:
    """The README's sentence."""
    per_second = _of(results["throughput"]["ours"]["per_second"])
    return (
        f"{per_second:,.0f} prompts a second, submitted, answered, stored and pushed, on two cores that also run the "
        f"servers and the clients; {_push(results, 'ours', 'p50'):.0f} ms for a lone prompt"
    )


def comparison(results: Results) -> str:
    """The table of all contenders."""
    rows = [
        "| | pushed a second | CPU of a prompt, all processes | a lone prompt: median, p99 |",
        "| --- | --- | --- | --- |",
    ]
    for name, title in _NAMES.items():
        throughput, latency = results["throughput"].get(name, {}), results["latency"]["quiet"].get(name, {})
        if "per_second" not in throughput or "push_ms" not in latency:  # skipped, or its latency is measured next
            continue
        times = "" if name == "ours" else f" ({_times(results, name):.1f} times fewer)"
        pushes = ", ".join(f"{_push(results, name, quantile):.1f} ms" for quantile in ("p50", "p99"))
        cpu = _of(throughput["cpu_ms_in_all"])
        rows.append(f"| {title} | {_of(throughput['per_second']):,.0f}{times} | {cpu:.2f} ms | {pushes} |")
    return "\n".join(rows)


def cpu(results: Results) -> str:
    """What a prompt costs in which process."""
    ours = results["throughput"]["ours"]
    parts = dict(zip(("the API", "the worker", "Valkey", "PostgreSQL"), _PARTS, strict=True))
    each = ", ".join(f"{ours['cpu_ms'][part]:.2f} in {name}" for name, part in parts.items())
    view = results["baseline"]["empty Flask view: requests"]["cpu_ms"]
    return (
        f"A prompt of Promptwire costs {_of(ours['cpu_ms_in_all']):.2f} ms of CPU: {each}. An empty Flask view under "
        f"the same server costs {view:.2f} ms."
    )


def busy(results: Results) -> str:
    """Latency at a share of the maximum rate."""
    push = results["latency"]["busy"]["ours"]["push_ms"]
    rate = results["latency"]["busy"]["ours"]["rate"]
    return (
        f"At {SHARE_OF_MAX:.0%} of that rate, {rate:,.0f} a second, an answer is pushed after "
        f"{_of(push['p50']):.0f} ms (median), and after {_of(push['p99']):.0f} ms (p99)."
    )


def overload(results: Results) -> str:
    """What happens above the maximum."""
    row = results["overload"]
    refused, submitted = row["answers"].get("503", 0), row["submit_ms"]["p99"] / 1_000
    return (
        f"At three times the possible rate, {row['rate']:,.0f} a second for {row['seconds']:.0f} s, "
        f"{row['per_second']:,.0f} a second are answered and pushed ({row['per_second'] / row['sustainable']:.0%} of "
        f"what a closed loop reached just before). {refused:,} submissions were refused, all with `Retry-After`; the "
        f"{row['accepted']:,} accepted were all answered. A response took {submitted:.2f} s (p99). "
        f"{row['recovered_s']:.1f} s later a lone prompt was as quick as before."
    )


def scaling(results: Results) -> str:
    """How the rate changes with users, stored prompts and sockets."""
    axes = results["scalability"]["axes"]
    sentences = []
    for name in ("users", "stored prompts", "sockets"):
        points = [point for point in axes[name] if "skipped" not in point]
        each = ", ".join(f"{point['per_second']:,.0f} with {point['at']:,}" for point in points)
        sentences.append(f"{name}: {each}")
    return f"Prompts a second by number of {'; of '.join(sentences)}."


def sharing(results: Results) -> str:
    """What a second process adds where it finds a free part of a core, and where it does not."""
    axes = results["scalability"]["axes"]
    try:
        api, shared, workers = (_second(axes[name]) for name in (API_AXIS, SHARED_API_AXIS, WORKER_AXIS))
    except KeyError:  # results from before these were measured
        return ""
    return (
        f"Where each has a quarter of a core, two API processes do {api:.2f} times as much as one, and two worker "
        f"hosts answer {workers:.2f} times as much. Two API processes that share a quarter do {shared:.2f} times as "
        "much as one that has it."
    )


def _second(points: list[dict[str, Any]]) -> float:
    """The rate of two processes, relative to that of one."""
    one, two = (point["per_second"] for point in points[:2])
    return float(two / one)


_PAGES: dict[Path, tuple[Callable[[Results], str], ...]] = {
    ROOT / "README.md": (headline,),
    ROOT / "docs" / "performance.md": (comparison, cpu, busy, overload, scaling, sharing),
}


def missing(results: Results) -> list[str]:
    """The texts that are not in their pages as the results have them."""
    return [
        f"{page.name}: {render(results)}"
        for page, renderers in _PAGES.items()
        for render in renderers
        if _in_one_line(render(results)) not in _in_one_line(page.read_text())
    ]


def publish(before: Results, after: Results) -> None:
    """Replace the figures of the results `before` in the pages by those `after`."""
    for page, renderers in _PAGES.items():
        text = page.read_text()
        for render in renderers:
            if old := render(before):
                text = text.replace(old, render(after))
        page.write_text(text)


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


def _of(spread: dict[str, float]) -> float:
    return spread["median"]


def _push(results: Results, name: str, quantile: str) -> float:
    row: dict[str, Any] = results["latency"]["quiet"][name]
    return _of(row["push_ms"][quantile])


def _times(results: Results, name: str) -> float:
    rates = [_of(results["throughput"][each]["per_second"]) for each in ("ours", name)]
    return rates[0] / rates[1]
