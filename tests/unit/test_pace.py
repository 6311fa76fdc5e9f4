"""How much a client may send over a WebSocket."""

import pytest

from api.realtime.pace import FRAMES_PER_SECOND, MAX_BURST_FRAMES, MAX_EXCESS_SECONDS, Pace


def test_a_burst_is_read_at_once_and_the_rest_at_the_pace() -> None:
    pace = Pace()
    assert not any(pace.charge(0, 1000.0) for _ in range(MAX_BURST_FRAMES))
    now, waits = 1000.0, []
    for _ in range(FRAMES_PER_SECOND):
        waits.append(pace.charge(0, now))
        now += waits[-1]
    assert sum(waits) == pytest.approx(1)


def test_large_frames_count_by_their_size() -> None:
    pace = Pace()
    for _ in range(MAX_BURST_FRAMES // 100):
        assert pace.charge(99 * 1024, 1000.0) == pytest.approx(0)
    assert pace.charge(99 * 1024, 1000.0) == pytest.approx(100 / FRAMES_PER_SECOND)


def test_only_a_client_that_keeps_sending_too_much_has_exhausted_it() -> None:
    pace, now = Pace(), 1000.0
    while not pace.is_exhausted(now):
        now += pace.charge(0, now)
    assert now == pytest.approx(1000 + MAX_EXCESS_SECONDS, abs=1)
    pace, now = Pace(), 1000.0
    for _ in range(3 * MAX_BURST_FRAMES):
        now += pace.charge(0, now)
    now += 10
    pace.charge(0, now)
    assert not pace.is_exhausted(now + 1000)
