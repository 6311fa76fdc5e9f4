"""PROMPT_RATE_LIMIT and the rate limits of API keys: how many prompts a user, and a key, may submit.

A group of submissions is counted in one round trip, in Redis for all API processes together, in memory by each while
Redis is unavailable. Windows are fixed and begin with the first submission in them. A submission that exceeds one of
the limits does not count against those after it. The limits of the key come first, so that a key over its own limit
leaves that of its user to others.
"""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from redis import Redis

from api.auth.principal import KeyGrant
from api.http.rate_limits import KEY_LIMITS, RateLimitedError, RedisFallback
from shared.messaging.queue import Queue

# Keys: for each submission one for each limit of its API key, if it has any, and one for each limit of its user.
# Arguments: how many limits users have, and each one's amount and window in seconds. Then for each submission whose
# API key has limits: which submission, how many limits, and each one's amount and window.
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
local shared, verdicts = tonumber(ARGV[1]), {}
local first, number, special = 0, 0, 2 + 2 * shared
while first < #KEYS do
    number = number + 1
    local breached, left, own = 0, 0, 0
    if ARGV[special] == tostring(number) then own = tonumber(ARGV[special + 1]) end
    for i = 1, own + shared do
        local key, at = KEYS[first + i], 2 * (i - own)
        if i <= own then at = special + 2 * i end
        if increment(key, ARGV[at + 1]) > tonumber(ARGV[at]) then
            breached, left = i, redis.call('PTTL', key)
            if left < 0 then redis.call('EXPIRE', key, ARGV[at + 1]) end
            break
        end
    end
    verdicts[#verdicts + 1] = breached
    verdicts[#verdicts + 1] = left
    if own > 0 then special = special + 2 + 2 * own end
    first = first + own + shared
end
return verdicts
"""

Verdict = RateLimitedError | None


class Caller(NamedTuple):
    """Who submits: a user, with an API key or without."""

    user_id: int
    api_key: KeyGrant | None = None


class SubmissionLimits:
    """Counts submissions, for which messages are sent on `queue` afterwards."""

    def __init__(self, redis: Redis, limits: str, queue: Queue) -> None:
        self._items = sorted(parse_many(limits))
        self._windows = [(item.amount, item.get_expiry()) for item in self._items]
        self._shared_arguments = [len(self._windows), *(value for window in self._windows for value in window)]
        self._script = redis.register_script(_COUNT)
        self._in_memory = FixedWindowRateLimiter(MemoryStorage())
        self._fallback = RedisFallback(queue)

    def count(self, callers: Sequence[Caller]) -> list[Verdict]:
        """Count a submission of each of these. Returns the errors of those that exceed a limit, else None."""
        return self._fallback.count(
            lambda: self._count_in_redis(callers), lambda: [self._count_in_memory(caller) for caller in callers]
        )

    def _count_in_redis(self, callers: Sequence[Caller]) -> list[Verdict]:
        keys, arguments = [], list(self._shared_arguments)
        for number, (user_id, api_key) in enumerate(callers, 1):
            if api_key is not None and (items := _own_limits(api_key)):
                arguments += [number, len(items)]
                for index, item in enumerate(items):
                    window = (item.amount, item.get_expiry())
                    keys.append(f"promptwire:limit:key:{index}:{window[0]}:{window[1]}:{api_key.id}")
                    arguments += window
            for index, (amount, seconds) in enumerate(self._windows):
                keys.append(f"promptwire:limit:{index}:{amount}:{seconds}:{user_id}")
        numbers = self._script(keys, arguments)
        return [
            self._refusal(caller, breached - 1, left / 1000) if breached else None
            for caller, breached, left in zip(callers, numbers[::2], numbers[1::2], strict=True)
        ]

    def _count_in_memory(self, caller: Caller) -> Verdict:
        for index, (item, counter) in enumerate(self._limits_of(caller)):
            if not self._in_memory.hit(item, counter):
                reset = self._in_memory.get_window_stats(item, counter).reset_time
                return self._refusal(caller, index, reset - time.time())
        return None

    def _refusal(self, caller: Caller, index: int, seconds: float) -> RateLimitedError:
        items = [item for item, _ in self._limits_of(caller)]
        return RateLimitedError(items, items[index], seconds)

    def _limits_of(self, caller: Caller) -> list[tuple[RateLimitItem, str]]:
        """The limits of a submission in the order in which they are counted, each with whose it is."""
        user_id, api_key = caller
        own = [] if api_key is None else [(item, str(api_key.id)) for item in _own_limits(api_key)]
        return own + [(item, str(user_id)) for item in self._items]


def _own_limits(api_key: KeyGrant) -> Sequence[RateLimitItem]:
    return () if api_key.rate_limit is None else _parse(api_key.rate_limit)


@lru_cache(maxsize=1_000)
def _parse(limits: str) -> Sequence[RateLimitItem]:
    return [type(item)(item.amount, item.multiples, namespace=KEY_LIMITS) for item in sorted(parse_many(limits))]
