"""Attacks, in the short form (`make faults-short`). `make faults ARGS=neighbours` runs the long form, with figures."""

from collections.abc import Iterator

import pytest

from tests.faults.neighbours import run
from tests.faults.neighbours.attacks import ATTACKS, Attack
from tests.faults.neighbours.run import SHORT, Neighbourhood


@pytest.fixture(scope="module")
def neighbourhood() -> Iterator[Neighbourhood]:
    with run.running(SHORT) as running:
        yield running


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_no_attack_is_noticed_by_a_neighbour(neighbourhood: Neighbourhood, attack: Attack) -> None:
    measured = neighbourhood.measure(attack)
    assert measured.breaches == [], measured


def test_the_neighbour_got_each_event_once(neighbourhood: Neighbourhood) -> None:
    assert neighbourhood.wrong_events() == {}
