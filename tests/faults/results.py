"""The latest figures, as JSON and as tables. A run of some scenarios or attacks replaces their rows."""

import json
import re
from dataclasses import asdict
from pathlib import Path

from tests.faults import outcome
from tests.faults.models.faults import FAULTS
from tests.faults.models.run import ModelOutcome
from tests.faults.models.scale import LONG as MODELS_LONG
from tests.faults.neighbours import measurement
from tests.faults.neighbours.attacks import ATTACKS
from tests.faults.neighbours.measurement import Measurement
from tests.faults.outcome import Outcome
from tests.faults.scale import LONG
from tests.faults.scenarios import SCENARIOS
from tests.support.servers import ROOT

SCENARIO_RESULTS = Path(__file__).with_name("results.json")
SCENARIO_TABLE = SCENARIO_RESULTS.with_suffix(".txt")
ATTACK_RESULTS = Path(__file__).parent / "neighbours" / "results.json"
MODEL_RESULTS = Path(__file__).parent / "models" / "results.json"
PAGE = ROOT / "docs" / "reliability.md"


def read_scenarios() -> dict[str, Outcome]:
    """Read the latest rows of the scenarios."""
    return {name: Outcome(**row) for name, row in _read(SCENARIO_RESULTS, "scenarios").items()}


def write_scenarios(outcomes: dict[str, Outcome]) -> None:
    """Replace the rows of these scenarios."""
    rows = read_scenarios() | outcomes
    rows = {scenario.__name__: rows[scenario.__name__] for scenario in SCENARIOS if scenario.__name__ in rows}
    results = {"scale": asdict(LONG), "scenarios": {name: asdict(row) for name, row in rows.items()}}
    SCENARIO_RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    SCENARIO_TABLE.write_text(outcome.table(list(rows.values())))
    _write_into_page("faults", SCENARIO_TABLE.read_text())


def read_attacks() -> dict[str, Measurement]:
    """Read the latest rows of the attacks."""
    return {name: Measurement.from_json(row) for name, row in _read(ATTACK_RESULTS, "attacks").items()}


def write_attacks(measurements: dict[str, Measurement]) -> None:
    """Replace the rows of these attacks."""
    rows = read_attacks() | measurements
    rows = {attack.name: rows[attack.name] for attack in ATTACKS if attack.name in rows}
    ATTACK_RESULTS.write_text(json.dumps({"attacks": {n: asdict(row) for n, row in rows.items()}}, indent=1) + "\n")
    _write_into_page("neighbours", measurement.table(list(rows.values())))


def read_models() -> dict[str, ModelOutcome]:
    """Read the latest rows of the faults among many answers."""
    return {name: ModelOutcome(**row) for name, row in _read(MODEL_RESULTS, "faults").items()}


def write_models(outcomes: dict[str, ModelOutcome]) -> None:
    """Replace the rows of these faults."""
    rows = read_models() | outcomes
    rows = {fault.name: rows[fault.name] for fault in FAULTS if fault.name in rows}
    results = {"scale": asdict(MODELS_LONG), "faults": {name: asdict(row) for name, row in rows.items()}}
    MODEL_RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    _write_into_page("models", outcome.table(list(rows.values())))


def _read(file: Path, key: str) -> dict[str, dict]:
    return json.loads(file.read_text())[key] if file.exists() else {}


def _write_into_page(name: str, table: str) -> None:
    """Replace the table between the comments of this name."""
    between = re.compile(rf"(<!-- {name} -->\n).*(<!-- /{name} -->\n)", re.DOTALL)
    PAGE.write_text(between.sub(lambda found: found[1] + table + found[2], PAGE.read_text()))
