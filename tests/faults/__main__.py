"""`make faults`: runs the long form, writes the figures as JSON and as tables, also into docs/reliability.md.

make faults                                 all scenarios and attacks; takes about an hour
make faults ARGS="kills poison"             only these; the other rows keep their figures
make faults ARGS=neighbours                 all attacks, beside a neighbour who is measured; takes ten minutes
make faults ARGS="pongs sockets"            only these attacks
make faults ARGS=models                     all faults among hundreds of answers at a time; takes six minutes
make faults ARGS="host_kills cancels"       only these
make faults ARGS="--short"                  the form that `make faults-short` runs, for a quick check; writes nothing
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from tests.faults import cluster as clusters
from tests.faults import results
from tests.faults.cluster import Cluster
from tests.faults.models import fleet as fleets
from tests.faults.models import run as model_runs
from tests.faults.models import scale as model_scale
from tests.faults.models.faults import FAULTS, Fault
from tests.faults.models.run import ModelOutcome
from tests.faults.neighbours import measurement, run
from tests.faults.neighbours.attacks import ATTACKS, Attack
from tests.faults.neighbours.measurement import Measurement
from tests.faults.outcome import Outcome, table
from tests.faults.scale import LONG, SHORT, Scale
from tests.faults.scenarios import SCENARIOS

_ALL_ATTACKS = "neighbours"
_ALL_FAULTS = "models"


def main() -> int:
    scenarios = {scenario.__name__: scenario for scenario in SCENARIOS}
    attacks = {attack.name: attack for attack in ATTACKS}
    faults = {fault.name: fault for fault in FAULTS}
    names = [*scenarios, _ALL_ATTACKS, *attacks, _ALL_FAULTS, *faults]
    parser = argparse.ArgumentParser(prog="make faults", description="Injects faults, and counts their effects.")
    parser.add_argument("name", nargs="*", choices=[*names, []], metavar="name", help=", ".join(names))
    parser.add_argument("--short", action="store_true", help="a few faults per scenario, without writing results")
    arguments = parser.parse_args()
    chosen = set(arguments.name or names)
    if _ALL_ATTACKS in chosen:
        chosen |= attacks.keys()
    if _ALL_FAULTS in chosen:
        chosen |= faults.keys()
    problems = _run_scenarios([scenarios[name] for name in scenarios if name in chosen], is_short=arguments.short)
    problems += _run_attacks([attacks[name] for name in attacks if name in chosen], is_short=arguments.short)
    problems += _run_faults([faults[name] for name in faults if name in chosen], is_short=arguments.short)
    return int(bool(problems))


def _run_scenarios(chosen: Sequence[Callable[[Cluster, Scale], Outcome]], *, is_short: bool) -> list[str]:
    """Run these, and return what did not go as promised."""
    if not chosen:
        return []
    outcomes: dict[str, Outcome] = {}
    with clusters.running() as cluster:
        for scenario in chosen:
            started = _announce(scenario.__name__)
            outcome = outcomes[scenario.__name__] = scenario(cluster, SHORT if is_short else LONG)
            outcome.date = datetime.now(UTC).date().isoformat()
            _report(started, _problems(outcome))
            if not is_short:
                results.write_scenarios(outcomes)
    print(table(list(outcomes.values())))
    return [problem for outcome in outcomes.values() for problem in _problems(outcome)]


def _run_attacks(chosen: Sequence[Attack], *, is_short: bool) -> list[str]:
    """Run these, and return what did not go as promised."""
    if not chosen:
        return []
    measurements: dict[str, Measurement] = {}
    with run.running(run.SHORT if is_short else run.LONG) as neighbourhood:
        for attack in chosen:
            started = _announce(attack.name)
            measured = measurements[attack.name] = neighbourhood.measure(attack)
            _report(started, measured.breaches + measured.late)
            if not is_short:
                results.write_attacks(measurements)
        wrong = neighbourhood.wrong_events()
    print(measurement.table(list(measurements.values())))
    problems = [problem for each in measurements.values() for problem in each.breaches + each.late]
    return problems + [f"prompts of the neighbour with other than one event: {wrong}"] * bool(wrong)


def _run_faults(chosen: Sequence[Fault], *, is_short: bool) -> list[str]:
    """Run these, and return what did not go as promised."""
    if not chosen:
        return []
    outcomes: dict[str, ModelOutcome] = {}
    scale = model_scale.SHORT if is_short else model_scale.LONG
    with fleets.running(scale) as fleet:
        for fault in chosen:
            started = _announce(fault.name)
            with model_runs.running(fleet, scale, fault.title) as under_load:
                fault.act(under_load, scale)
            outcome = outcomes[fault.name] = under_load.outcome
            outcome.date = datetime.now(UTC).date().isoformat()
            _report(started, _problems(outcome))
            if not is_short:
                results.write_models(outcomes)
    print(table(list(outcomes.values())))
    return [problem for outcome in outcomes.values() for problem in _problems(outcome)]


def _problems(outcome: Outcome) -> list[str]:
    return outcome.broken_promises() + outcome.late


def _announce(name: str) -> float:
    print(f"{name} …", end=" ", flush=True)
    return time.monotonic()


def _report(started: float, problems: list[str]) -> None:
    print("; ".join(problems) or "ok", f"({time.monotonic() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
