"""Results that are kept for a short time."""

from itertools import count

import pytest

from shared.cached_result import CachedResult


def test_a_result_is_kept_for_its_time_and_not_longer() -> None:
    numbers = count()
    kept, expired = (CachedResult(lambda: next(numbers), seconds) for seconds in (60, 0))
    assert [kept(), kept()] == [0, 0]
    assert [expired(), expired()] == [1, 2]


def test_an_error_is_not_kept() -> None:
    divisors = iter([0, 1])
    cached = CachedResult(lambda: 1 / next(divisors), seconds=60)
    with pytest.raises(ZeroDivisionError):
        cached()
    assert cached() == 1
