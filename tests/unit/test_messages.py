"""Validation of queue messages: a list of ids is valid, anything else may be forged."""

import pytest

from worker.tasks import _are_ids


@pytest.mark.parametrize("value", [[], [1], [1, 2, 2**63 - 1]])
def test_a_list_of_ids_is_accepted(value: object) -> None:
    assert _are_ids(value)


@pytest.mark.parametrize("value", [None, 1, "text", ["1"], [True], [1.0], [0], [-1], [2**63], [[1]], {"1": 1}, [None]])
def test_anything_but_a_list_of_ids_is_rejected(value: object) -> None:
    assert not _are_ids(value)
