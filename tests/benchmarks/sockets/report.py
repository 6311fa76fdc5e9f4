"""The benchmark's output: results.json, and the same as text in results.txt."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.pages import ARCHITECTURE, DOCS, Pages, markdown_table, publish
from tests.benchmarks.reporting import read

FOLDER = Path(__file__).parent
RESULTS, TABLES = (FOLDER / f"results.{suffix}" for suffix in ("json", "txt"))

Row = dict[str, Any]
Results = dict[str, Any]


def write(results: Results) -> None:
    publish(PAGES, read(RESULTS), results)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    on = results["machine"]
    about = f"{on['date']}, {on['cores']} cores {on['cpu']}, load {on['load_at_start']} before the run"
    TABLES.write_text(f"{about}\n\n{tables(results)}\n")


def tables(results: Results) -> str:
    """Format a line for each figure and a column for each distribution of sockets over users."""
    columns = [title for title in results if title != "machine"]
    lines = [["", *columns]]
    for part in results[columns[0]]:
        lines.append([part, *("" for _ in columns)])
        for figure in results[columns[0]][part]:
            lines.append([f"  {figure}", *(f"{results[column][part][figure]:,}" for column in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths) for cells in lines)


def _line(cells: list[str], widths: list[int]) -> str:
    first, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join([cells[0].ljust(len(first)), *others]).rstrip()


def published(results: Results) -> str:
    """The table in the documentation."""
    first, second = (row for name, row in results.items() if name != "machine")

    def both(show: Callable[[dict[str, Row]], str]) -> list[str]:
        return [show(first), show(second)]

    def request(kind: str, part: str, row: dict[str, Row]) -> str:
        return f"{row[part][f'{kind}_p50_ms']:.1f} ms, {row[part][f'{kind}_p99_ms']:.1f} ms"

    paced = "requests, 20 events a second"
    rows = {
        "resident, in all": both(lambda row: f"{row['joining']['resident_mb']} MB"),
        "a socket": both(lambda row: f"{row['joining']['kb_a_socket']} KB"),
        "all of them join, 200 at a time": both(lambda row: f"{row['joining']['join_s']:.0f} s"),
        "a prompt of each user is answered, 100 a task: until the last socket has its event": both(
            lambda row: f"{row['prompts that are answered']['seconds']} s"
        ),
        "an event for each user at once: the last socket has it after": both(
            lambda row: f"{row['an event of every user at once']['last_socket_ms'] / 1000:.2f} s"
        ),
        "CPU of the API for such an event, a socket": both(
            lambda row: f"{row['an event of every user at once']['api_us_a_socket']:.0f} µs"
        ),
        "an event every 50 ms: p50, p99": both(partial(request, "push", paced)),
        "`GET /livez/` meanwhile: p50, p99": both(partial(request, "livez", paced)),
        "`GET /livez/` without sockets": both(partial(request, "livez", "requests, no sockets")),
        "a poll meanwhile: p50, p99": both(partial(request, "poll", paced)),
        "a poll without sockets": both(partial(request, "poll", "requests, no sockets")),
        "a check of all feeds, every 5 s: CPU, and its longest part": both(
            lambda row: f"{row['poll of the feeds']['check_ms']:.0f} ms, {row['poll of the feeds']['longest_ms']} ms"
        ),
    }
    return markdown_table(("", *(name for name in results if name != "machine")), rows)


def joining(results: Results) -> str:
    """From what the page on AWS calculates."""
    (row,) = (row["joining"] for name, row in results.items() if name.endswith("users, 1 each"))
    return (
        f"{row['kb_a_socket']} KB a socket; {row['sockets'] / row['join_s']:.0f} joins a second ({row['sockets']:,} in "
        f"{row['join_s']:.0f} s);"
    )


PAGES: Pages = {ARCHITECTURE: (published,), DOCS / "aws.md": (joining,)}
