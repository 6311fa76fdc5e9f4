"""Spin finds no error in the model of the protocol, and an error in it without each of its rules."""

import pytest

from infra.protocol import spin
from infra.protocol.checks import BROKEN_RULES, CHECKS, SMALL_FEED, SMALL_QUEUE, Check

pytestmark = pytest.mark.skipif(bool(spin.missing_programs()), reason="needs spin and gcc")

#: `make check-protocol` makes the larger searches.
MAX_STATES = 1_000_000


@pytest.mark.parametrize(
    "check",
    [
        Check("queue: 2 faults", ("NO_SOCKET", "FAULTS=2", "CANCELS=0", "RETRIES=0")),
        Check("queue: no execution is endless", ("NO_SOCKET", "FAULTS=1", "CANCELS=0", "RETRIES=0"), "liveness"),
        *(SMALL_QUEUE, SMALL_FEED),  # what the broken rules are compared with
        *[check for check in CHECKS if check.name.startswith("feed")],
    ],
    ids=lambda check: check.name,
)
def test_no_prompt_waits_for_ever_and_no_event_is_missed_or_repeated(check: Check) -> None:
    result = spin.run(check)
    assert result.error is None
    assert 1_000 < result.states < MAX_STATES


@pytest.mark.parametrize(("macro", "check", "assertion"), BROKEN_RULES, ids=[macro for macro, *_ in BROKEN_RULES])
def test_spin_finds_a_broken_rule(macro: str, check: Check, assertion: str) -> None:
    error = spin.run(check, macro).error
    assert error is not None
    assert assertion in error


def test_a_search_that_is_cut_short_is_an_error() -> None:
    with pytest.raises(spin.SpinError):
        spin._read(
            "Warning: Search not completed\nState-vector 8 byte, depth reached 9, errors: 0\n  7 states, stored", 1
        )
    with pytest.raises(spin.SpinError):
        spin._read("error: max search depth too small\n depth reached 9, errors: 0\n  7 states, stored", 1)
