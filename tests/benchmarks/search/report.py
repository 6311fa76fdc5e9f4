"""What the benchmark writes: results.json, tables in results.txt, and a plot."""

import json
import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS, TABLES, PLOT = (FOLDER / f"results.{suffix}" for suffix in ("json", "txt", "svg"))

Results = dict[str, Any]

_LIBRARIES = (
    "faiss-cpu", "numpy", "psycopg2-binary", "sqlalchemy", "flask", "gunicorn", "chromadb", "lancedb", "usearch",
    "hnswlib", "django", "daphne",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """What was measured on, and with what."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _LIBRARIES},
    }


def _cpu() -> str:
    names = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def read() -> Results:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def write(results: Results) -> None:
    """Replaces those parts of the files that were measured; the others stay."""
    before = read()
    merged = before | results | {"conditions": before.get("conditions", {}) | results["conditions"]}
    RESULTS.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    TABLES.write_text(tables(merged))
    if "race" in merged:
        plot(merged)


def tables(results: Results) -> str:
    """Everything as text."""
    parts = []
    for part in (_race, _http, _own_writes, _one_of_a_kind, _index_types):
        parts.extend(part(results))
    return "\n".join(parts)


def _race(results: Results) -> list[str]:
    found = []
    for user, figures in results.get("race", {}).items():
        kind, own = user.split("/")
        columns = ("p50_ms", "p10_ms", "p99_ms", "per_second", "recall", "times_ours", "cpu_ms", "cpu_times_ours")
        title = f"{kind}, {int(own):,} vectors of the user; {_conditions(results, 'race')}"
        found.append(_table(title, "contender", columns, figures))
    for name, title in {"cold": "first search of a new store", "memory": "bytes a vector"}.items():
        rows = {user: _flat(figures) for user, figures in results.get(name, {}).items()}
        columns = tuple(dict.fromkeys(column for row in rows.values() for column in row))
        found += [_table(f"{title}; {_conditions(results, 'race')}", "user", columns, rows)] if rows else []
    return found


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    """{"a": {"x": 1}} as {"a x": 1}."""
    found = {}
    for name, value in figures.items():
        found |= {f"{name}, {key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _http(results: Results) -> list[str]:
    if "http" not in results:
        return []
    columns = ("p50_ms", "p10_ms", "p99_ms", "per_second", "found", "times_ours", "cpu_ms", "cpu_times_ours")
    title = f"whole requests, 20,000 prompts stored, 1,000 of them the caller's; {_conditions(results, 'http')}"
    return [_table(title, "service", columns, results["http"])]


def _own_writes(results: Results) -> list[str]:
    if "own_writes" not in results:
        return []
    title = f"found by the next search elsewhere after its commit; {_conditions(results, 'race')}"
    return [_table(title, "store", ("found", "of", "ms"), results["own_writes"])]


def _one_of_a_kind(results: Results) -> list[str]:
    titles = {"deletions": "deleted, then searched elsewhere", "bounded": "many users, SEARCH_MEMORY_MIB=16"}
    return [
        _table(f"{title}; {_conditions(results, 'race')}", "", tuple(results[name]), {"ours": results[name]})
        for name, title in titles.items()
        if name in results
    ]


def _index_types(results: Results) -> list[str]:
    columns = ("p50_ms", "p10_ms", "p99_ms", "cpu_ms", "recall", "bytes", "build_s")
    return [
        _table(f"kinds of index, {user}; {_conditions(results, 'index_types')}", "index", columns, figures)
        for user, figures in results.get("index_types", {}).items()
    ]


def _conditions(results: Results, part: str) -> str:
    on = results.get("conditions", {}).get(part, {})
    of = f", among {on['total']:,}" if "total" in on else ""
    busy = f"; others kept {on['busy_percent']} % of the processors busy" if on.get("busy_percent") else ""
    return f"{on.get('date')}, {on.get('cores')} cores {on.get('cpu')}, one thread{of}{busy}"


def _table(title: str, first: str, columns: tuple[str, ...], rows: dict[str, dict[str, Any]]) -> str:
    lines = [[first, *columns]]
    notes = []
    for name, row in rows.items():
        if "skipped" in row:
            notes.append(f"  {name}: not measured, {row['skipped']}\n")
        else:
            note = f" ({row['among']:,})" if "among" in row else ""
            lines.append([name + note, *(_shown(row.get(column)) for column in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "".join(
        "  "
        + "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        + "\n"
        for line in lines
    )
    return f"{title}\n{text}{''.join(notes)}"


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def plot(results: Results) -> None:
    """p50 by the number of the user's vectors, both logarithmic."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("No plot: matplotlib is not installed (make bench-search installs it).")
        return
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "promptwire"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    lines: dict[str, list[tuple[int, float]]] = {}
    for user, figures in results.get("race", {}).items():
        kind, own = user.split("/")
        for name, row in figures.items():
            if kind == "random" and "p50_ms" in row:
                lines.setdefault(name, []).append((int(own), row["p50_ms"]))
    for name, points in lines.items():
        axes.loglog(*zip(*sorted(points), strict=True), marker="o", label=name, linewidth=3 if name == "ours" else 1.2)
    axes.set(xlabel="vectors of the user", ylabel="p50 of a search, ms", title="Five nearest of one user's vectors")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=7)
    figure.savefig(PLOT, metadata={"Date": None}, bbox_inches="tight")
