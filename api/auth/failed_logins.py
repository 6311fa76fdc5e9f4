"""Limits of failed logins, which stop guessing without locking users out.

Failed logins are counted by three keys. A *block* is the client's IPv4 /24 or IPv6 /64, because a client that has one
address usually has the others of its block, too.

1. The block, against a client that tries many users.
2. The user and the block. An attacker's failures count for the attacker's block, so they do not affect the owner.
3. The user, against attackers who guess one user's password from many blocks. One block cannot reach this limit,
   because an attempt that an earlier limit refuses is not counted by a later one, and limit 2 allows only 600 an hour.

Over a limit, an attempt from a block that the user has never logged in from is refused without verifying its password.
So it costs little, and does not reveal whether the guess was right.

From a block that the user has logged in from (`shared/accounts/login_blocks.py`) the right password is still accepted:
the owner may have mistyped it, or share an office with the attacker. So the password is verified, and the response, 200
or 429, says whether it was right. The protection is a throttle: over a limit, all API processes together verify one
password of a user every THROTTLED_SECONDS from each known block. That is 30 a minute, three times what limit 2 allows.
Attempts wait for the throttle. One that would wait too long is refused without verifying its password, so the owner may
have to try again while an attacker in the same block keeps the throttle busy. A wrong password gets the same 429 as
from an unknown block. Only a client in the block can notice that it is known: after ten failures, by the time that a
response takes.
"""

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from limits import RateLimitItem, RateLimitItemPerSecond, parse
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis import RedisError

from api.http.rate_limits import REDIS_OPTIONS, RateLimitedError, RedisFallback
from shared.errors import InvalidCredentialsError
from shared.messaging.redis import reconnect_if_read_only

FAILED_LOGINS_PER_BLOCK = "100/minute"
FAILED_LOGINS_PER_USER_AND_BLOCK = "10/minute"
FAILED_LOGINS_PER_USER = "1000/hour"

#: Over a limit, one password of a user is verified in this time, from each block that the user has logged in from.
THROTTLED_SECONDS = 2
#: How long an attempt waits for the throttle, at most.
MAX_THROTTLED_WAIT_SECONDS = 10.0
#: How many attempts wait for the throttle in a process, for each user and block.
MAX_THROTTLED_ATTEMPTS = 10
_LOCKS = 256

_Counter = tuple[RateLimitItem, str, str]


class FailedLogins:
    """Counts failed logins, in Redis for all API processes, in memory by each while Redis is unavailable."""

    def __init__(
        self,
        redis_url: str,
        *,
        per_block: str = FAILED_LOGINS_PER_BLOCK,
        per_user: str = FAILED_LOGINS_PER_USER,
        throttled_seconds: int = THROTTLED_SECONDS,
        max_wait_seconds: float = MAX_THROTTLED_WAIT_SECONDS,
    ) -> None:
        storage = RedisStorage(redis_url, **REDIS_OPTIONS)
        reconnect_if_read_only(storage.storage)
        self._in_redis = FixedWindowRateLimiter(storage)
        self._in_memory = FixedWindowRateLimiter(MemoryStorage())
        self._fallback = RedisFallback()
        self._limits = tuple(map(parse, (per_block, FAILED_LOGINS_PER_USER_AND_BLOCK, per_user)))
        self._throttle = RateLimitItemPerSecond(1, throttled_seconds)
        self._max_wait_seconds = max_wait_seconds
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._waiting: Counter[tuple[str, str]] = Counter()

    @contextmanager
    def attempt(self, username: str, block: str, is_known: Callable[[], bool]) -> Iterator[None]:
        """Count a login as failed, and take the count back unless the with block raises InvalidCredentialsError.

        Counting first, and one attempt per user and address block at a time (in a process), keeps concurrent failures
        from slipping through and concurrent successes from blocking each other. `is_known` is called only over a limit;
        it returns whether the user has logged in from this address block.

        Raises:
            RateLimitedError: a limit is exceeded, and the address block is unknown or the password wrong.
        """
        with self._locks[hash((username, block)) % _LOCKS]:
            limiter, refusal = self._count(username, block)
            if refusal is None:
                try:
                    yield
                except InvalidCredentialsError:
                    raise
                except Exception:  # the password was not checked
                    self._take_back(limiter, username, block)
                    raise
                self._take_back(limiter, username, block)
                return
        if not is_known() or not self._wait_until_permitted(username, block):
            raise refusal
        try:
            yield
        except InvalidCredentialsError:
            raise refusal from None

    def forget(self, username: str, block: str) -> None:
        """Delete the counts of a deleted user. They are kept by name, and another user may take the name."""
        _, *of_user = self._counters(username, block)
        for limit, *key in of_user:
            self._in_memory.clear(limit, *key)
            with suppress(RedisError):
                self._in_redis.clear(limit, *key)

    def _counters(self, username: str, block: str) -> list[_Counter]:
        per_block, per_user_and_block, per_user = self._limits
        name = _hash(username)
        return [
            (per_block, "login-block", block),
            (per_user_and_block, f"login-user-block:{block}", name),
            (per_user, "login-user", name),
        ]

    def _count(self, username: str, block: str) -> tuple[FixedWindowRateLimiter, RateLimitedError | None]:
        """Count up to the first limit that is exceeded. Returns the limiter that counted, and the error if any."""
        counters = self._counters(username, block)
        return self._fallback.count(
            lambda: (self._in_redis, _hit_all(self._in_redis, counters)),
            lambda: (self._in_memory, _hit_all(self._in_memory, counters)),
        )

    def _take_back(self, limiter: FixedWindowRateLimiter, username: str, block: str) -> None:
        with suppress(RedisError):
            for limit, *key in self._counters(username, block):
                limiter.hit(limit, *key, cost=-1)

    def _wait_until_permitted(self, username: str, block: str) -> bool:
        """Wait for the throttle of this user and block. Returns False if that would take too long."""
        key = (username, block)
        if self._waiting[key] >= MAX_THROTTLED_ATTEMPTS:
            return False
        self._waiting[key] += 1
        try:
            deadline = time.monotonic() + self._max_wait_seconds
            while not self._is_permitted(username, block):
                if time.monotonic() >= deadline:
                    return False
                time.sleep(random.uniform(0.05, 0.15))  # noqa: S311  # nosec B311
            return True
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]

    def _is_permitted(self, username: str, block: str) -> bool:
        key = (self._throttle, f"login-throttle:{block}", _hash(username))
        return self._fallback.count(lambda: self._in_redis.hit(*key), lambda: self._in_memory.hit(*key))


def _hash(username: str) -> str:
    """What counters are called by, so that Redis keeps no name of a deleted user, and no password typed as a name."""
    return hashlib.sha256(username.encode("utf-8", "replace")).hexdigest()


def _hit_all(limiter: FixedWindowRateLimiter, counters: list[_Counter]) -> RateLimitedError | None:
    policies = []
    for limit, *key in counters:
        policies.append(limit)
        if not limiter.hit(limit, *key):
            return RateLimitedError(policies, limit, limiter.get_window_stats(limit, *key).reset_time - time.time())
    return None
