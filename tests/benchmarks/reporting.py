"""Shared parts of the benchmark reports: the machine, tables as text, and plots."""

import json
import os
import platform
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def machine(libraries: Iterable[str]) -> dict[str, Any]:
    """Describe the machine and the versions of these libraries."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in libraries},
    }


def _cpu() -> str:
    names = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def read(path: Path) -> dict[str, Any]:
    """Read earlier results, if there are any."""
    return json.loads(path.read_text()) if path.exists() else {}


def merge(path: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Replace the measured sections in the file and in its `conditions`. Return the merged results."""
    before = read(path)
    merged: dict[str, Any] = before | results | {"conditions": before.get("conditions", {}) | results["conditions"]}
    path.write_text(json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    return merged


def table(title: str, first: str, columns: tuple[str, ...], rows: dict[str, dict[str, Any]]) -> str:
    """Format rows by name, each with some of the columns, or with the reason why it was `skipped`."""
    lines = [[first, *columns]]
    notes = []
    for name, row in rows.items():
        if "skipped" in row:
            notes.append(f"  {name}: not measured, {row['skipped']}\n")
        else:
            note = f" ({row['among']:,})" if "among" in row else ""
            lines.append([name + note, *(shown(row.get(column)) for column in columns)])
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


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def pyplot() -> Any | None:
    """Return pyplot, set up for reproducible SVG. Print a line and return None if matplotlib is not installed."""
    try:
        import matplotlib as mpl
    except ImportError:
        print("No plot: matplotlib is not installed (make bench and make bench-search install it).")
        return None
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "promptwire"
    from matplotlib import pyplot

    return pyplot
