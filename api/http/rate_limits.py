"""Rate limits of logins and registrations, shared by all API processes in Redis.

While Redis is unavailable, each process counts in memory. Windows are fixed and begin with the first request in them.
`api/intake/submission_limits.py` has the limits of prompts.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from flask import request
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import FixedWindowRateLimiter
from redis import RedisError

from shared.errors import PromptwireError
from shared.settings import Settings

FAILED_LOGINS_PER_USERNAME = "10/minute"
FAILED_LOGINS_PER_ADDRESS = "100/minute"
REGISTRATIONS_PER_ADDRESS = "10/hour"
REGISTER_ENDPOINT = "auth.register"

#: After an error Redis is not asked again for this long.
REDIS_PAUSE_SECONDS = 1.0
_REDIS_OPTIONS: dict[str, Any] = {"socket_timeout": 0.25, "socket_connect_timeout": 0.25}
_USERNAME_LOCKS = 256

Counted = TypeVar("Counted")


class RateLimitedError(PromptwireError):
    """Too many requests.

    `policies` are the limits that were checked, `breached` is the one that was exceeded, and `wait` is how many seconds
    are left of its window.
    """

    def __init__(self, policies: Sequence[RateLimitItem], breached: RateLimitItem, seconds: float) -> None:
        self.policies, self.breached, self.wait = policies, breached, max(1, math.ceil(seconds))
        super().__init__(f"Too many requests: try again in {self.wait} s.")


class RedisFallback:
    """Counts in Redis, and in memory for REDIS_PAUSE_SECONDS after Redis has failed."""

    def __init__(self) -> None:
        self._paused_until = 0.0

    def count(self, in_redis: Callable[[], Counted], in_memory: Callable[[], Counted]) -> Counted:
        """The result of one of the two."""
        if time.monotonic() >= self._paused_until:
            try:
                return in_redis()
            except RedisError:
                self._paused_until = time.monotonic() + REDIS_PAUSE_SECONDS
        return in_memory()


class FailedLogins:
    """Limits failed logins, per username and per address."""

    def __init__(self, redis_url: str) -> None:
        self._in_redis = FixedWindowRateLimiter(storage_from_string(redis_url, **_REDIS_OPTIONS))
        self._in_memory = FixedWindowRateLimiter(MemoryStorage())
        self._fallback = RedisFallback()
        self._limits = parse(FAILED_LOGINS_PER_USERNAME), parse(FAILED_LOGINS_PER_ADDRESS)
        self._locks = [threading.Lock() for _ in range(_USERNAME_LOCKS)]

    @contextmanager
    def attempt(self, username: str, address: str) -> Iterator[None]:
        """Count a login as failed, and take the count back if the block succeeds.

        Counting first, and one attempt per username at a time (in a process), keeps concurrent failures from slipping
        through and concurrent successes from blocking each other.

        Raises:
            RateLimitedError: a limit is exceeded.
        """
        by_username, by_address = self._limits
        counters = [(by_username, "login-username", username), (by_address, "login-address", address)]
        with self._locks[hash(username) % _USERNAME_LOCKS]:
            limiter = self._fallback.count(
                lambda: _hit_all(self._in_redis, counters), lambda: _hit_all(self._in_memory, counters)
            )
            yield
            with suppress(RedisError):
                for limit, *key in counters:
                    limiter.hit(limit, *key, cost=-1)


def _hit_all(limiter: FixedWindowRateLimiter, counters: list[tuple[RateLimitItem, str, str]]) -> FixedWindowRateLimiter:
    """Count with this limiter, and return it."""
    policies = []
    for limit, *key in counters:
        policies.append(limit)
        if not limiter.hit(limit, *key):
            raise RateLimitedError(policies, limit, limiter.get_window_stats(limit, *key).reset_time - time.time())
    return limiter


def make_registration_limiter(settings: Settings) -> Limiter:
    """flask-limiter, for `limiter.limit(REGISTRATIONS_PER_ADDRESS)` on the view that registers users.

    It is enabled only in production with open registration, because its hooks run in every request, whether or not the
    view has a limit: `GET /livez/` takes 70 to 80 µs more CPU, of 230, and some 25 µs more again without the filter.
    """
    limiter = Limiter(
        key_func=client_address,
        enabled=settings.app_env == "prod" and settings.registration_open,
        storage_uri=settings.redis_url.get_secret_value(),
        storage_options=_REDIS_OPTIONS,
        key_prefix="promptwire",
        in_memory_fallback_enabled=True,
        # It switches to memory for the first request that finds Redis unavailable. Concurrent ones are let through.
        swallow_errors=True,
    )
    limiter.request_filter(lambda: request.endpoint != REGISTER_ENDPOINT)
    return limiter


def rate_limited_error(limiter: Limiter, error: RateLimitExceeded) -> RateLimitedError:
    """Convert flask-limiter's exception to ours."""
    checked = limiter.current_limits
    seconds = max((each.window.reset_time for each in checked if each.breached), default=0) - time.time()
    return RateLimitedError([each.limit for each in checked], error.limit.limit, seconds)


def client_address() -> str:
    return request.remote_addr or "unknown"
