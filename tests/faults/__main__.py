"""`make faults`: runs the long form, writes the figures as JSON and as a table, also into docs/reliability.md.

make faults                                 all scenarios; takes about an hour
make faults ARGS="kills poison"             only these; the other rows keep their figures
make faults ARGS="--short"                  the form that `make faults-short` runs, for a quick check; writes nothing
"""

import argparse
import json
import re
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from tests.faults import cluster as clusters
from tests.faults.outcome import Outcome, table
from tests.faults.scale import LONG, SHORT
from tests.faults.scenarios import SCENARIOS
from tests.support.servers import ROOT

RESULTS = Path(__file__).with_name("results.json")
TABLE = RESULTS.with_suffix(".txt")
PAGE = ROOT / "docs" / "reliability.md"
_TABLE_IN_PAGE = re.compile(r"(<!-- faults -->\n).*(<!-- /faults -->\n)", re.DOTALL)


def main() -> int:
    names = [scenario.__name__ for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(prog="make faults", description="Injects faults, and counts their effects.")
    parser.add_argument("scenario", nargs="*", choices=[*names, []], help=", ".join(names))
    parser.add_argument("--short", action="store_true", help="a few faults per scenario, without writing results")
    arguments = parser.parse_args()
    chosen = [scenario for scenario in SCENARIOS if not arguments.scenario or scenario.__name__ in arguments.scenario]
    outcomes: dict[str, Outcome] = {}
    with clusters.running() as cluster:
        for scenario in chosen:
            started = time.monotonic()
            print(f"{scenario.__name__} …", end=" ", flush=True)
            outcome = scenario(cluster, SHORT if arguments.short else LONG)
            outcome.date = datetime.now(UTC).date().isoformat()
            outcomes[scenario.__name__] = outcome
            problems = outcome.broken_promises() + outcome.late
            print("; ".join(problems) or "ok", f"({time.monotonic() - started:.0f} s)", flush=True)
            if not arguments.short:
                write(outcomes)
    print(table(list(outcomes.values())))
    return int(any(outcome.broken_promises() or outcome.late for outcome in outcomes.values()))


def write(outcomes: dict[str, Outcome]) -> None:
    """Replace the rows of these scenarios."""
    rows = read() | outcomes
    rows = {scenario.__name__: rows[scenario.__name__] for scenario in SCENARIOS if scenario.__name__ in rows}
    results = {"scale": asdict(LONG), "scenarios": {name: asdict(row) for name, row in rows.items()}}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    TABLE.write_text(table(list(rows.values())))
    PAGE.write_text(_TABLE_IN_PAGE.sub(lambda found: found[1] + TABLE.read_text() + found[2], PAGE.read_text()))


def read() -> dict[str, Outcome]:
    """Read the latest rows."""
    if not RESULTS.exists():
        return {}
    return {name: Outcome(**row) for name, row in json.loads(RESULTS.read_text())["scenarios"].items()}


if __name__ == "__main__":
    sys.exit(main())
