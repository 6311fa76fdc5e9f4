"""Writes results.json, tables in results.txt, and a plot."""

from pathlib import Path
from typing import Any

from tests.benchmarks.pages import ARCHITECTURE, DOCS, Pages, markdown_table, store
from tests.benchmarks.reporting import pyplot, table

FOLDER = Path(__file__).parent
RESULTS, TABLES, PLOT = (FOLDER / f"results.{suffix}" for suffix in ("json", "txt", "svg"))

Results = dict[str, Any]

LIBRARIES = (
    "faiss-cpu", "numpy", "psycopg2-binary", "sqlalchemy", "flask", "gunicorn", "chromadb", "lancedb", "usearch",
    "hnswlib", "django", "daphne",
)  # fmt: skip


def write(results: Results) -> None:
    """Replace the measured sections in the files; the others stay."""
    merged = store(RESULTS, PAGES, results)
    TABLES.write_text(tables(merged))
    if "race" in merged:
        plot(merged)


def tables(results: Results) -> str:
    """Format all results as text."""
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
        found.append(table(title, "contender", columns, figures))
    for name, title in {"cold": "first search of a new store", "memory": "bytes per vector"}.items():
        rows = {user: _flat(figures) for user, figures in results.get(name, {}).items()}
        columns = tuple(dict.fromkeys(column for row in rows.values() for column in row))
        found += [table(f"{title}; {_conditions(results, 'race')}", "user", columns, rows)] if rows else []
    return found


def _flat(figures: dict[str, Any]) -> dict[str, Any]:
    """Turn {"a": {"x": 1}} into {"a, x": 1}."""
    found = {}
    for name, value in figures.items():
        found |= {f"{name}, {key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _http(results: Results) -> list[str]:
    if "http" not in results:
        return []
    columns = ("p50_ms", "p10_ms", "p99_ms", "per_second", "found", "times_ours", "cpu_ms", "cpu_times_ours")
    title = f"whole requests, 20,000 prompts stored, 1,000 of them the caller's; {_conditions(results, 'http')}"
    return [table(title, "service", columns, results["http"])]


def _own_writes(results: Results) -> list[str]:
    if "own_writes" not in results:
        return []
    title = f"committed prompts found by the next search in another process; {_conditions(results, 'race')}"
    return [table(title, "store", ("found", "of", "ms"), results["own_writes"])]


def _one_of_a_kind(results: Results) -> list[str]:
    titles = {
        "deletions": "deleted prompts, searched for in another process",
        "bounded": "many users, SEARCH_MEMORY_MIB=16",
    }
    return [
        table(f"{title}; {_conditions(results, 'race')}", "", tuple(results[name]), {"ours": results[name]})
        for name, title in titles.items()
        if name in results
    ]


def _index_types(results: Results) -> list[str]:
    columns = ("p50_ms", "p10_ms", "p99_ms", "cpu_ms", "recall", "bytes", "build_s")
    return [
        table(f"index types, {user}; {_conditions(results, 'index_types')}", "index", columns, figures)
        for user, figures in results.get("index_types", {}).items()
    ]


def _conditions(results: Results, part: str) -> str:
    on = results.get("conditions", {}).get(part, {})
    of = f", among {on['total']:,}" if "total" in on else ""
    busy = f"; other processes used {on['busy_percent']} % of the processors" if on.get("busy_percent") else ""
    return f"{on.get('date')}, {on.get('cores')} cores {on.get('cpu')}, one thread{of}{busy}"


def plot(results: Results) -> None:
    """Draw p50 by the number of the user's vectors, both logarithmic."""
    drawing = pyplot()
    if drawing is None:
        return
    figure, axes = drawing.subplots(figsize=(8, 5))
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


def headline(results: Results) -> str:
    """The sentences in the documentation."""
    race, http = results["race"], results["http"]
    many = race["random/100000"]["ours"]
    return (
        "A whole search in one's own 1,000 vectors, among a million, takes "
        f"{race['random/1000']['ours']['p50_ms']:.1f} ms; in 100,000 it takes {many['p50_ms']:.1f} ms, at a recall@5 "
        f"of {many['recall']:.3f}. Over HTTP a search takes "
        f"{1 / http['a poll of ours']['times_ours']:.1f} times as long as a poll; the original takes "
        f"{http['original']['times_ours']:.1f} times as long."
    )


def comparison(results: Results) -> str:
    """The table in the documentation."""
    columns = ("ours", "pgvector exact", "LanceDB", "FAISS flat of the user")

    def cells(figures: dict[str, Any]) -> list[str]:
        times = [figures.get(name, {}).get("p50_ms") for name in columns]
        return [
            *("" if ms is None else f"{ms:.{2 if ms < 1 else 1}f}" for ms in times),
            f"{figures['ours']['recall']:.3f}",
        ]

    users = {user.partition("/")[2]: row for user, row in results["race"].items() if user.startswith("random/")}
    return markdown_table(
        ("own vectors", "ours", "pgvector, exact", "LanceDB", "FAISS flat, in memory, without PostgreSQL", "recall@5"),
        {f"{int(own):,}": cells(row) for own, row in users.items()},
    )


PAGES: Pages = {DOCS / "performance.md": (headline,), ARCHITECTURE: (comparison,)}
