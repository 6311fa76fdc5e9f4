"""The short form of the fault suite (`make faults-short`). `make faults` runs the long form, with figures."""

from collections.abc import Callable, Iterator

import pytest

from tests.faults import cluster as clusters
from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.scale import SHORT, Scale
from tests.faults.scenarios import SCENARIOS


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with clusters.running() as up:
        yield up


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_no_scenario_breaks_a_promise(cluster: Cluster, scenario: Callable[[Cluster, Scale], Outcome]) -> None:
    outcome = scenario(cluster, SHORT)
    assert outcome.faults > 0
    assert outcome.completed > 0
    assert outcome.broken_promises() == [], outcome
