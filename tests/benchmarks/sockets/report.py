"""The benchmark's output: results.json, and the same as text in results.txt."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS, TABLES = (FOLDER / f"results.{suffix}" for suffix in ("json", "txt"))

Row = dict[str, Any]
Results = dict[str, Any]


def write(results: Results) -> None:
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
