"""The benchmark's output: results.json, tables in results.txt, and a plot."""

from pathlib import Path
from typing import Any

from tests.benchmarks import pages
from tests.benchmarks.end_to_end import plot, published, scalability, targets
from tests.benchmarks.end_to_end.latency import QUIET_RATE, SHARE_OF_MAX
from tests.benchmarks.end_to_end.overload import OVERLOAD_FACTOR
from tests.benchmarks.end_to_end.targets import Results
from tests.benchmarks.end_to_end.throughput import GENERATOR
from tests.benchmarks.reporting import shown, table

FOLDER = Path(__file__).parent
RESULTS, TABLES, PLOT = (FOLDER / f"results.{suffix}" for suffix in ("json", "txt", "svg"))

LIBRARIES = (
    "flask", "gunicorn", "gevent", "celery", "kombu", "redis", "sqlalchemy", "psycopg2-binary", "django", "channels",
    "daphne", "fastapi", "uvicorn", "taskiq", "procrastinate", "psycopg", "dramatiq", "uvloop",
)  # fmt: skip
_PARTS = ("api", "worker", "valkey", "postgres")
_FAULTS = ("accepted", "lost", "repeated", "misdirected")


def write(results: Results) -> None:
    """Replace the measured sections in the files. The others stay."""
    merged = pages.store(RESULTS, published.PAGES, results)
    TABLES.write_text(tables(merged))
    plot.draw(merged, PLOT)


def tables(results: Results) -> str:
    """Return all tables as text."""
    parts = (_targets, _throughput, _cpu, _memory, _latency, _overload, _baseline, _api_keys, _scalability, _plans)
    return "\n".join(text for part in parts for text in part(results))


def _targets(results: Results) -> list[str]:
    text = table("targets of our service", "figure", ("target", "measured", "met"), targets.verdicts(results))
    faults = targets.faults(results)
    if not faults:
        return [text + "  every accepted prompt was pushed to its user exactly once\n"]
    lines = [f"  {name}: {what}\n" for name, each in faults.items() for what in each]
    return [
        text
        + "  NOT EVERY ACCEPTED PROMPT WAS PUSHED TO ITS USER EXACTLY ONCE, or another violation:\n"
        + "".join(lines)
    ]


def _throughput(results: Results) -> list[str]:
    rows = {
        name: {
            **_spread(row, "per_second"),
            **_spread(row, "times_original"),
            **_spread(row, "times_one_task_each"),
            "connections": row["connections"],
            **{name: row[name] for name in _FAULTS},
        }
        for name, row in _measured(results.get("throughput", {}))
    }
    return _tables(results, "throughput", "prompts whose answer was pushed, closed loop", "service", rows)


def _cpu(results: Results) -> list[str]:
    rows = {
        name: {part: row["cpu_ms"].get(part) for part in _PARTS}
        | _spread(row, "cpu_ms_in_all")
        | {"load generator": row["cpu_ms"].get(GENERATOR)}
        | {"cores used by other processes": row["others_cores"]["median"]}
        for name, row in _measured(results.get("throughput", {}))
    }
    return _tables(results, "throughput", "CPU per prompt, ms", "service", rows)


def _memory(results: Results) -> list[str]:
    rows = {name: row["peak_rss_mib"] for name, row in _measured(results.get("throughput", {}))}
    # All contenders share the servers.
    return _tables(results, "throughput", "peak memory, MiB", "service", rows, ("api", "worker"))


def _latency(results: Results) -> list[str]:
    found = []
    titles = {
        "quiet": f"latency at {QUIET_RATE} prompts per second",
        "busy": f"latency at {SHARE_OF_MAX:.0%} of the maximum rate",
    }
    for pace, title in titles.items():
        rows = {
            name: {
                "rate": row["rate"],
                **{f"push {q}_ms": _shown_spread(row["push_ms"][q]) for q in ("p50", "p90", "p99")},
                **{f"submit {q}_ms": _shown_spread(row["submit_ms"][q]) for q in ("p50", "p99")},
                **_spread(row, "times_original"),
                "sent late p99_ms": row["late_ms"]["p99"] and row["late_ms"]["p99"]["median"],
                **{name: row[name] for name in _FAULTS},
            }
            for name, row in _measured(results.get("latency", {}).get(pace, {}))
        }
        found += _tables(results, "latency", title, "service", rows)
    return found


def _overload(results: Results) -> list[str]:
    row = results.get("overload")
    if row is None:
        return []
    figures = {name: value for name, value in row.items() if not isinstance(value, dict)}
    memory = {
        "before": row["rss_before_mib"],
        "peak": row["peak_rss_mib"],
        "largest process": row["largest_process_mib"],
    }
    submit = (row["submit_ms"] or {}).get("p99")
    figures = {"answers": _counts(row["answers"]), "submit p99_ms": submit, **figures}
    title = f"{OVERLOAD_FACTOR} times the sustainable rate, open loop, {row['seconds']:.0f} s"
    return [
        table(f"{title}; {_conditions(results, 'overload')}", "", ("",), {k: {"": v} for k, v in figures.items()}),
        table("memory during the overload, MiB", "", _PARTS, memory),
    ]


def _baseline(results: Results) -> list[str]:
    rows = {
        name: _spread(row, "per_second") | {"cpu_ms": row.get("cpu_ms")} for name, row in _items(results, "baseline")
    }
    return _tables(results, "baseline", "baseline: what the machine allows", "", rows)


def _api_keys(results: Results) -> list[str]:
    rows = {
        name: {**_spread(row, "cpu_us"), **_spread(row, "times_token"), "submissions": row["submissions"]}
        for name, row in _items(results, "api_keys")
    }
    return _tables(results, "api_keys", "CPU of a submission in the API's thread, µs", "", rows)


def _scalability(results: Results) -> list[str]:
    found = []
    for axis, points in results.get("scalability", {}).get("axes", {}).items():
        first = next(iter(scalability.measured(points)), {})
        rows = {f"{point['at']:,}": _row_of_point(point, first) for point in points}
        found += [
            text + f"  {_knee(axis, points)}\n"
            for text in _tables(results, "scalability", f"our service by the number of {axis}", axis, rows)
        ]
    return found


def _row_of_point(point: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    if "skipped" in point:
        return point
    return {
        "per_second": point["per_second"],
        "relative to the first": point["per_second"] / (first["per_second"] or 1),
        "push_p50_ms": point.get("push_p50_ms"),
        "push_p99_ms": point.get("push_p99_ms"),
        **{f"{part} cores": cores for part, cores in point["cores"].items()},
        "api MiB": point.get("api_rss_mib"),
        "limit": point["limit"],
    }


def _knee(axis: str, points: scalability.Points) -> str:
    at_knee = scalability.knee(points)
    if at_knee is None:
        return f"No knee up to {points[-1]['at']:,} {axis}."
    return f"The knee is before {at_knee['at']:,} {axis}, limited by: {at_knee['limit']}."


def _plans(results: Results) -> list[str]:
    return [
        f"plan of the {query}, {int(count):,} stored prompts\n" + "".join(f"  {line}\n" for line in plan.splitlines())
        for count, plans in results.get("scalability", {}).get("plans", {}).items()
        for query, plan in plans.items()
    ]


def _items(results: Results, part: str) -> list[tuple[str, dict[str, Any]]]:
    return list(results.get(part, {}).items())


def _measured(rows: dict[str, dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [(name, row) for name, row in rows.items() if "skipped" not in row]


def _tables(
    results: Results, section: str, title: str, first: str, rows: dict[str, Any], columns: tuple[str, ...] = ()
) -> list[str]:
    if not rows:
        return []
    columns = columns or tuple(dict.fromkeys(column for _, row in _measured(rows) for column in row))
    skipped = {
        name: row
        for name, row in _items(results, section)
        if isinstance(row, dict) and "skipped" in row and name not in rows
    }
    return [table(f"{title}; {_conditions(results, section)}", first, columns, rows | skipped)]


def _spread(row: dict[str, Any], name: str) -> dict[str, str]:
    return {name: _shown_spread(row.get(name))}


def _shown_spread(spread: dict[str, float] | None) -> str:
    """Format the median, with the minimum and the maximum in brackets."""
    if spread is None:
        return ""
    median, minimum, maximum = (shown(spread[name]) for name in ("median", "min", "max"))
    return median if minimum == maximum else f"{median} ({minimum} to {maximum})"


def _counts(answers: dict[str, int]) -> str:
    return ", ".join(f"{answer}: {count:,}" for answer, count in answers.items())


def _conditions(results: Results, section: str) -> str:
    on = results.get("conditions", {}).get(section, {})
    rounds = f", medians of {on['rounds']} rounds (minimum to maximum)" if on.get("rounds", 1) > 1 else ""
    busy = f"CPU busy before the run {on.get('busy_percent')} %"
    return f"{on.get('date')}, {on.get('cores')} cores {on.get('cpu')}{rounds}; {busy}"
