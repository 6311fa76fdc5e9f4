"""The rate limit of the frames that a client sends over a WebSocket."""

import pytest

from api.realtime.frame_rate import FRAMES_PER_SECOND, MAX_BURST_FRAMES, MAX_EXCESS_SECONDS, FrameRateLimit


def test_a_burst_is_read_at_once_and_the_rest_at_the_limited_rate() -> None:
    frame_rate = FrameRateLimit()
    assert not any(frame_rate.charge(0, 1000.0) for _ in range(MAX_BURST_FRAMES))
    now, waits = 1000.0, []
    for _ in range(FRAMES_PER_SECOND):
        waits.append(frame_rate.charge(0, now))
        now += waits[-1]
    assert sum(waits) == pytest.approx(1)


def test_large_frames_count_by_their_size() -> None:
    frame_rate = FrameRateLimit()
    for _ in range(MAX_BURST_FRAMES // 100):
        assert frame_rate.charge(99 * 1024, 1000.0) == pytest.approx(0)
    assert frame_rate.charge(99 * 1024, 1000.0) == pytest.approx(100 / FRAMES_PER_SECOND)


def test_only_a_client_that_keeps_sending_too_much_exhausts_the_limit() -> None:
    frame_rate, now = FrameRateLimit(), 1000.0
    while not frame_rate.is_exhausted(now):
        now += frame_rate.charge(0, now)
    assert now == pytest.approx(1000 + MAX_EXCESS_SECONDS, abs=1)
    frame_rate, now = FrameRateLimit(), 1000.0
    for _ in range(3 * MAX_BURST_FRAMES):
        now += frame_rate.charge(0, now)
    now += 10
    frame_rate.charge(0, now)
    assert not frame_rate.is_exhausted(now + 1000)
