"""What a message on the queue may be: a list of ids, whatever was forged."""

import pytest

from worker.tasks import _are_ids


@pytest.mark.parametrize("value", [[], [1], [1, 2, 2**63 - 1]])
def test_lists_of_ids_are_taken(value: object) -> None:
    assert _are_ids(value)


@pytest.mark.parametrize("value", [None, 1, "text", ["1"], [True], [1.0], [0], [-1], [2**63], [[1]], {"1": 1}, [None]])
def test_anything_else_is_refused(value: object) -> None:
    assert not _are_ids(value)
