"""The pause before a failed prompt is tried again."""

from datetime import timedelta
from unittest.mock import Mock

import pytest

from worker.failures import MAX_RETRY_BACKOFF, Failures


@pytest.mark.parametrize(
    ("backoff", "attempt", "longest"),
    [(2, 1, 2), (2, 3, 8), (2, 1_000, 300), (3_600, 1_000, 300), (0.000001, 60, 300), (0, 1_000, 0)],
)
def test_the_pause_doubles_up_to_five_minutes_however_many_attempts(backoff: float, attempt: int, longest: int) -> None:
    failures = Failures(*[Mock()] * 6, timedelta(seconds=backoff), timedelta(), timedelta())
    assert longest / 2 <= failures._retry_delay(attempt).total_seconds() <= longest <= MAX_RETRY_BACKOFF.total_seconds()
