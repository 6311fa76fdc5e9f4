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
