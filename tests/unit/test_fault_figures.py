"""The published figures of the fault suite: complete, clean, and the same wherever they stand."""

from tests.faults.__main__ import PAGE, TABLE, read
from tests.faults.outcome import table
from tests.faults.scenarios import SCENARIOS


def test_every_scenario_has_a_row() -> None:
    assert list(read()) == [scenario.__name__ for scenario in SCENARIOS]


def test_no_promise_was_broken() -> None:
    assert {name: row.broken_promises() + row.late for name, row in read().items()} == {name: [] for name in read()}


def test_the_table_is_the_same_in_all_places() -> None:
    assert TABLE.read_text() == table(list(read().values()))
    assert TABLE.read_text() in PAGE.read_text()
