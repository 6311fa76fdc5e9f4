"""PROMPT_RATE_LIMIT: how many prompts a user may submit, counted for a group of submissions in one round trip.

Submissions are counted in Redis for all API processes together, in memory by each while Redis is unavailable. Windows
are fixed and begin with the first submission in them. A submission that exceeds one of the limits does not count
against those after it.
"""

import time
from collections.abc import Sequence

from limits import parse_many
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from redis import Redis

from api.http.rate_limits import RateLimitedError, RedisFallback

# Keys: one for each submission and limit. Arguments: each limit's amount and window in seconds.
# Returns, for each submission, which limit it exceeds (0: none) and how long that still lasts, in milliseconds.
# A key of another type would fail the whole group, and one that does not expire would refuse its user for ever. So the
# first is replaced, and the second gets an expiry.
_COUNT = """
local function increment(key, window)
    local count = redis.pcall('INCR', key)
    if type(count) ~= 'number' or count < 1 then
        redis.call('SET', key, 1)
        count = 1
    end
    if count == 1 then redis.call('EXPIRE', key, window) end
    return count
end
local limits, verdicts = #ARGV / 2, {}
for first = 1, #KEYS, limits do
    local breached, left = 0, 0
    for i = 1, limits do
        local key = KEYS[first + i - 1]
        if increment(key, ARGV[2 * i]) > tonumber(ARGV[2 * i - 1]) then
            breached, left = i, redis.call('PTTL', key)
            if left < 0 then redis.call('EXPIRE', key, ARGV[2 * i]) end
            break
        end
    end
    verdicts[#verdicts + 1] = breached
    verdicts[#verdicts + 1] = left
end
return verdicts
"""

Verdict = RateLimitedError | None


class SubmissionLimits:
    """Counts submissions."""

    def __init__(self, redis: Redis, limits: str) -> None:
        self._items = sorted(parse_many(limits))
        self._windows = [(item.amount, item.get_expiry()) for item in self._items]
        self._script = redis.register_script(_COUNT)
        self._in_memory = FixedWindowRateLimiter(MemoryStorage())
        self._fallback = RedisFallback()

    def count(self, user_ids: Sequence[int]) -> list[Verdict]:
        """Count a submission of each of these users. Returns the errors of those that exceed a limit, else None."""
        return self._fallback.count(
            lambda: self._count_in_redis(user_ids), lambda: [self._count_in_memory(user_id) for user_id in user_ids]
        )

    def _count_in_redis(self, user_ids: Sequence[int]) -> list[Verdict]:
        keys = [
            f"promptwire:limit:{index}:{amount}:{seconds}:{user_id}"
            for user_id in user_ids
            for index, (amount, seconds) in enumerate(self._windows)
        ]
        numbers = self._script(keys, [value for window in self._windows for value in window])
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        return [self._refusal(breached - 1, left / 1000) if breached else None for breached, left in pairs]

    def _count_in_memory(self, user_id: int) -> Verdict:
        for index, item in enumerate(self._items):
            if not self._in_memory.hit(item, str(user_id)):
                reset = self._in_memory.get_window_stats(item, str(user_id)).reset_time
                return self._refusal(index, reset - time.time())
        return None

    def _refusal(self, index: int, seconds: float) -> RateLimitedError:
        return RateLimitedError(self._items, self._items[index], seconds)
