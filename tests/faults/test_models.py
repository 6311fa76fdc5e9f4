"""Faults of hosts and providers that answer many prompts at a time, in the short form (`make faults-short`).

`make faults ARGS=models` runs the long form, with figures.
"""

from tests.faults.models import fleet as fleets
from tests.faults.models import run as runs
from tests.faults.models.faults import FAULTS
from tests.faults.models.scale import SHORT


def test_no_fault_among_many_answers_breaks_a_promise() -> None:
    """All of them one after the other, under the same load: starting and counting take longer than the faults."""
    with fleets.running(SHORT) as fleet, runs.running(fleet, SHORT, "all") as run:
        for fault in FAULTS:
            fault.act(run, SHORT)
            assert run.outcome.breaches == [], fault.name
    assert run.outcome.completed > 0
    assert run.outcome.broken_promises() == [], run.outcome
