"""The published figures of the fault suite are complete, report no violation, and are the same in all files."""

from tests.faults import outcome
from tests.faults.models.faults import FAULTS
from tests.faults.neighbours import measurement
from tests.faults.neighbours.attacks import ATTACKS
from tests.faults.results import PAGE, SCENARIO_TABLE, read_attacks, read_models, read_scenarios
from tests.faults.scenarios import SCENARIOS


def test_every_fault_scenario_has_a_row() -> None:
    assert list(read_scenarios()) == [scenario.__name__ for scenario in SCENARIOS]


def test_no_fault_scenario_broke_a_promise() -> None:
    rows = read_scenarios()
    assert {name: row.broken_promises() + row.late for name, row in rows.items()} == {name: [] for name in rows}


def test_the_fault_table_is_the_same_in_all_files() -> None:
    assert SCENARIO_TABLE.read_text() == outcome.table(list(read_scenarios().values()))
    assert SCENARIO_TABLE.read_text() in PAGE.read_text()


def test_every_attack_has_a_row() -> None:
    assert list(read_attacks()) == [attack.name for attack in ATTACKS]


def test_no_attack_broke_a_promise() -> None:
    assert {name: row.breaches + row.late for name, row in read_attacks().items()} == {a.name: [] for a in ATTACKS}


def test_the_table_of_attacks_is_that_of_their_figures() -> None:
    assert measurement.table(list(read_attacks().values())) in PAGE.read_text()


def test_every_fault_among_many_answers_has_a_row() -> None:
    assert list(read_models()) == [fault.name for fault in FAULTS]


def test_no_fault_among_many_answers_broke_a_promise() -> None:
    rows = read_models()
    assert {name: row.broken_promises() + row.late for name, row in rows.items()} == {name: [] for name in rows}


def test_the_table_of_faults_among_many_answers_is_that_of_their_figures() -> None:
    assert outcome.table(list(read_models().values())) in PAGE.read_text()
