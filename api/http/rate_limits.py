"""The basis of all rate limits, and the limit of registrations.

All API processes count together, in Redis. While Redis is unavailable, each process counts in memory. Windows are fixed
and begin with the first request in them. The limits of submissions are in `api/intake/submission_limits.py`, those of
logins in `api/auth/failed_logins.py`.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from flask import request
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage, RedisStorage
from limits.strategies import FixedWindowRateLimiter
from redis import RedisError, ResponseError, TimeoutError

from api.http.addresses import address_block
from shared.errors import PromptwireError
from shared.messaging.queue import Queue
from shared.messaging.redis import reconnect_if_read_only, refusal
from shared.settings import Settings

REGISTRATIONS_PER_ADDRESS = "10/hour"
REGISTER_ENDPOINT = "auth.register"
#: A sign-in with the identity provider has three requests, and an office may have one address.
SIGN_IN_REQUESTS_PER_BLOCK = "300/minute"

#: After an error Redis is not asked again for this long.
REDIS_PAUSE_SECONDS = 1.0
REDIS_OPTIONS: dict[str, Any] = {"socket_timeout": 0.25, "socket_connect_timeout": 0.25}

#: The namespace of the rate limits of API keys.
KEY_LIMITS = "API key"

Counted = TypeVar("Counted")


class RateLimitedError(PromptwireError):
    """Too many requests.

    `policies` are the limits that were checked, `breached` is the one that was exceeded, and `wait` is how many seconds
    are left of its window.
    """

    def __init__(self, policies: Sequence[RateLimitItem], breached: RateLimitItem, seconds: float) -> None:
        self.policies, self.breached, self.wait = policies, breached, max(1, math.ceil(seconds))
        super().__init__(f"Too many requests: try again in {self.wait} s.")

    @property
    def metric_label(self) -> str:
        """The exceeded limit, for metrics. Those of API keys share one label: users choose them."""
        return KEY_LIMITS if self.breached.namespace == KEY_LIMITS else str(self.breached)


def policy_name(limit: RateLimitItem) -> str:
    """The name of a limit in the RateLimit headers."""
    return f"{KEY_LIMITS}: {limit}" if limit.namespace == KEY_LIMITS else str(limit)


class RedisFallback:
    """Counts in Redis, and in memory for REDIS_PAUSE_SECONDS after Redis has failed.

    Args:
        queue: If given, a request that sends a message after counting waits for a stalled Redis only once: counting and
            sending tell each other.
    """

    def __init__(self, queue: Queue | None = None) -> None:
        self._queue = queue
        self._paused_until = 0.0

    def count(self, in_redis: Callable[[], Counted], in_memory: Callable[[], Counted]) -> Counted:
        """The result of one of the two."""
        if time.monotonic() >= self._paused_until and (self._queue is None or self._queue.is_available):
            try:
                return in_redis()
            except RedisError as error:
                # Other answers mean that Redis works, but what it stores under this key is not a counter.
                if not isinstance(error, ResponseError) or refusal(error) is not None:
                    self._paused_until = time.monotonic() + REDIS_PAUSE_SECONDS
                if self._queue is not None and isinstance(error, TimeoutError):
                    self._queue.wait_for_broker()
        return in_memory()


class AddressLimiter:
    """Limits how often the clients of an address block may do something."""

    def __init__(self, redis_url: str, limit: str, name: str) -> None:
        storage = RedisStorage(redis_url, **REDIS_OPTIONS)
        reconnect_if_read_only(storage.storage)
        self._in_redis = FixedWindowRateLimiter(storage)
        self._in_memory = FixedWindowRateLimiter(MemoryStorage())
        self._fallback = RedisFallback()
        self._limit = parse(limit)
        self._name = name

    def count(self) -> None:
        """Count this request.

        Raises:
            RateLimitedError: the limit is exceeded.
        """
        key = (self._name, client_block())
        limiter, is_permitted = self._fallback.count(
            lambda: (self._in_redis, self._in_redis.hit(self._limit, *key)),
            lambda: (self._in_memory, self._in_memory.hit(self._limit, *key)),
        )
        if not is_permitted:
            seconds = limiter.get_window_stats(self._limit, *key).reset_time - time.time()
            raise RateLimitedError([self._limit], self._limit, seconds)


def make_registration_limiter(settings: Settings) -> Limiter:
    """flask-limiter, for `limiter.limit(REGISTRATIONS_PER_ADDRESS)` on the view that registers users.

    It is enabled only in production with open registration, because its hooks run in every request, whether or not the
    view has a limit: `GET /livez/` takes 70 to 80 µs more CPU, of 230, and some 25 µs more again without the filter.
    """
    limiter = Limiter(
        key_func=client_block,
        enabled=settings.app_env == "prod" and settings.registration_open,
        storage_uri=settings.redis_url.get_secret_value(),
        storage_options=REDIS_OPTIONS,
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


def client_block() -> str:
    """The address block of the client, an IPv4 /24 or an IPv6 /64, by which limits count.

    A client that has one address usually has the others of its block, too. The address is the peer's, or with
    TRUSTED_PROXIES the one that the outermost of these proxies saw.
    """
    return address_block(request.remote_addr or "unknown", ipv4_prefix=24, ipv6_prefix=64)
