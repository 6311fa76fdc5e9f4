"""Counting in Redis, and in memory while Redis is unavailable."""

import pytest
from redis import ConnectionError, RedisError, ResponseError, TimeoutError
from redis.exceptions import OutOfMemoryError, ReadOnlyError

from api.http.rate_limits import RedisFallback


class Counts:
    """Counts how often each side is asked. Redis fails with `error` at first."""

    def __init__(self, error: RedisError) -> None:
        self.error: RedisError | None = error
        self.asked: list[str] = []

    def in_redis(self) -> None:
        self.asked.append("redis")
        error, self.error = self.error, None
        if error is not None:
            raise error

    def in_memory(self) -> None:
        self.asked.append("memory")


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        # One key is not a counter: others are still counted in Redis.
        (ResponseError("WRONGTYPE Operation against a key"), ["redis", "memory", "redis"]),
        # Redis is unavailable: it is left alone for a while.
        (ConnectionError(), ["redis", "memory", "memory"]),
        (TimeoutError(), ["redis", "memory", "memory"]),
        # It answers, but refuses to write.
        (ReadOnlyError("You can't write against a read only replica."), ["redis", "memory", "memory"]),
        (OutOfMemoryError("command not allowed"), ["redis", "memory", "memory"]),
        (ResponseError("MISCONF Errors writing to the AOF file"), ["redis", "memory", "memory"]),
    ],
)
def test_redis_is_paused_only_while_it_is_unavailable(
    monkeypatch: pytest.MonkeyPatch, error: RedisError, asked: list[str]
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 1_000.0)
    counts, fallback = Counts(error), RedisFallback()
    for _ in range(2):
        fallback.count(counts.in_redis, counts.in_memory)
    assert counts.asked == asked


class StalledQueue:
    """A queue that is available until somebody has waited for it in vain."""

    is_available = True

    def wait_for_broker(self) -> None:
        self.is_available = False


def test_a_request_waits_for_a_stalled_redis_only_once() -> None:
    counts, queue = Counts(TimeoutError()), StalledQueue()
    fallback = RedisFallback(queue)
    fallback.count(counts.in_redis, counts.in_memory)
    assert not queue.is_available  # so that no message is sent


def test_a_refused_connection_takes_no_time_and_leaves_the_queue_alone() -> None:
    counts, queue = Counts(ConnectionError()), StalledQueue()
    RedisFallback(queue).count(counts.in_redis, counts.in_memory)
    assert queue.is_available


def test_redis_is_not_asked_while_the_queue_waits_for_it() -> None:
    counts, queue = Counts(TimeoutError()), StalledQueue()
    fallback = RedisFallback(queue)
    queue.wait_for_broker()
    fallback.count(counts.in_redis, counts.in_memory)
    queue.is_available = True
    counts.error = None
    fallback.count(counts.in_redis, counts.in_memory)
    assert counts.asked == ["memory", "redis"]
