"""The figures of results.json as the documentation has them."""

import math
from typing import Any

from tests.benchmarks.end_to_end.latency import SHARE_OF_MAX
from tests.benchmarks.end_to_end.quarters import API_AXIS, SHARED_API_AXIS, WORKER_AXIS
from tests.benchmarks.end_to_end.targets import Results
from tests.benchmarks.pages import ARCHITECTURE, DOCS, README, Pages, markdown_table

#: How the documentation names the contenders.
_NAMES = {
    "ours": "Promptwire",
    "taskiq_fastapi": "FastAPI, taskiq, asyncpg",
    "procrastinate_fastapi": "FastAPI, procrastinate (PostgreSQL is the queue)",
    "dramatiq_flask": "Flask, Dramatiq, a message for each prompt",
    "one_task_each": "Flask, Celery, a task for each prompt, tuned",
    "original": "Django, Channels, answered within the request",
}
#: A prompt's write-ahead log.
WAL_KB = 3
#: How much more CPU a prompt costs at low rates, where prompts come alone, than in groups.
LONE_FACTOR = 3
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
    api, shared, workers = (_second(axes[name]) for name in (API_AXIS, SHARED_API_AXIS, WORKER_AXIS))
    return (
        f"Where each has a quarter of a core, two API processes do {api:.2f} times as much as one, and two worker "
        f"hosts answer {workers:.2f} times as much. Two API processes that share a quarter do {shared:.2f} times as "
        "much as one that has it."
    )


def _second(points: list[dict[str, Any]]) -> float:
    """The rate of two processes, relative to that of one."""
    one, two = (point["per_second"] for point in points[:2])
    return float(two / one)


def at_rates(results: Results) -> str:
    """What given rates need, by arithmetic."""
    each = results["throughput"]["ours"]["cpu_ms"]
    in_all = _of(results["throughput"]["ours"]["cpu_ms_in_all"])
    rows = {
        f"{rate:,}": [
            *(f"{math.ceil(rate * each[part] / 1_000)}" for part in ("api", "worker")),
            f"{rate * each['postgres'] / 1_000:.2g} cores, {rate * WAL_KB // 1_000} MB of WAL a second",
            f"{rate * each['valkey'] / 1_000:.0%} of its core",
        ]
        for rate in (1_000, 10_000, 50_000)
    }
    heads = ("prompts a second", "API processes", "worker processes (instant answers)", "PostgreSQL", "Valkey")
    return (
        f"By arithmetic, with {in_all:.2f} ms of CPU a prompt, {each['api']:.2f} of it in the API, and a core for each "
        f"process:\n\n{markdown_table(heads, rows)}"
    )


def measured(results: Results) -> str:
    """From what the page on AWS calculates."""
    each = results["throughput"]["ours"]["cpu_ms"]
    in_all, per_second = (_of(results["throughput"]["ours"][figure]) for figure in ("cpu_ms_in_all", "per_second"))
    return (
        f"{in_all:.1f} ms of CPU a prompt (API {each['api']:.1f}, worker {each['worker']:.1f}, PostgreSQL "
        f"{each['postgres']:.1f}, Valkey {each['valkey']:.2f}); {per_second:,.0f} prompts a second;"
    )


def of_users(results: Results) -> str:
    """The CPU that numbers of users need, at the peak rates of the page on AWS."""
    in_all = _of(results["throughput"]["ours"]["cpu_ms_in_all"])
    cores = (f"{rate * in_all * LONE_FACTOR / 1_000:.2g}" for rate in (0.5, 5, 50, 500))
    return f"| CPU of all parts at peak, cores, {LONE_FACTOR} times that of a group | {' | '.join(cores)} |"


PAGES: Pages = {
    README: (headline,),
    DOCS / "performance.md": (comparison, cpu, busy, overload, scaling, sharing),
    DOCS / "aws.md": (measured, of_users),
    ARCHITECTURE: (at_rates,),
}


def _of(spread: dict[str, float]) -> float:
    return spread["median"]


def _push(results: Results, name: str, quantile: str) -> float:
    row: dict[str, Any] = results["latency"]["quiet"][name]
    return _of(row["push_ms"][quantile])


def _times(results: Results, name: str) -> float:
    rates = [_of(results["throughput"][each]["per_second"]) for each in ("ours", name)]
    return rates[0] / rates[1]
