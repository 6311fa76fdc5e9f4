"""Rate limits: counted in Redis for all API processes together, in memory by each while Redis is away.

Here are those of logins and registrations; `api/intake/submission_limits.py` has those of prompts. Windows are fixed
and begin with the first request in them.
"""

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from flask import Flask, g, request
from flask_limiter import Limiter, RateLimitExceeded
from limits import RateLimitItem
from redis import RedisError

from shared.errors import PromptwireError
from shared.settings import Settings

FAILED_LOGINS_PER_USERNAME = "10/minute"
FAILED_LOGINS_PER_ADDRESS = "100/minute"
REGISTRATIONS_PER_ADDRESS = "10/hour"


_REDIS_TIMEOUT_SECONDS = 0.25


class RateLimitedError(PromptwireError):
    """Too many requests.

    `policies` are the limits of such a request, `breached` the one that it ran into, `wait` the seconds until that
    admits another one.
    """

    def __init__(self, policies: Sequence[RateLimitItem], breached: RateLimitItem, seconds: float) -> None:
        self.policies, self.breached, self.wait = policies, breached, max(1, math.ceil(seconds))
        super().__init__(f"Too many requests: try again in {self.wait} s.")


class Limits:
    """Each method counts one request in its context, and raises RateLimitedError over the limit."""

    def __init__(self, settings: Settings) -> None:
        self._production = settings.app_env == "prod"
        self._limiter = Limiter(
            key_func=_address,
            storage_uri=settings.redis_url.get_secret_value(),
            # Redis takes seconds as float, flask-limiter's annotation does not.
            storage_options={
                "socket_timeout": _REDIS_TIMEOUT_SECONDS,  # type: ignore[dict-item]
                "socket_connect_timeout": _REDIS_TIMEOUT_SECONDS,  # type: ignore[dict-item]
            },
            key_prefix="promptwire",
            in_memory_fallback_enabled=True,
            fail_on_first_breach=True,
        )
        self._turns = [threading.Lock() for _ in range(256)]
        limit = self._limiter.limit
        self._count_registration = limit(REGISTRATIONS_PER_ADDRESS)(_registration)
        by_username = limit(FAILED_LOGINS_PER_USERNAME, key_func=_username)
        self._count_login = by_username(limit(FAILED_LOGINS_PER_ADDRESS)(_login))

    def init_app(self, app: Flask) -> None:
        before, after = list(app.before_request_funcs.get(None, [])), list(app.after_request_funcs.get(None, []))
        self._limiter.init_app(app)
        # It would look at every request, though only what is counted here has limits.
        app.before_request_funcs[None], app.after_request_funcs[None] = before, after

    def registration(self) -> None:
        """Counts a registration from this address, in production."""
        if self._production:
            self._count(self._count_registration)

    @contextmanager
    def login(self, username: str) -> Iterator[None]:
        """Counts a failed login: one whose block raises.

        It is counted before it is tried, and one of a username is tried at a time (in a process), so that many at once
        cannot all slip through, nor hinder each other when they are right.
        """
        g.login_username = username
        with self._turns[hash(username) % len(self._turns)]:
            self._count(self._count_login)
            yield
            with suppress(RedisError):
                for used in self._limiter.current_limits:
                    self._limiter.limiter.hit(used.limit, *used.request_args, cost=-1)

    def _count(self, count: Callable[[], None]) -> None:
        """Counts; again, in memory, if Redis has just been found away.

        flask-limiter turns to memory for the request that finds it, but not for those that find it at the same time.
        """
        try:
            try:
                count()
            except RedisError:
                count()
        except RateLimitExceeded as error:
            used = self._limiter.current_limits
            resets = [each.window.reset_time for each in used if each.breached]
            seconds = max(resets, default=0) - time.time()
            raise RateLimitedError([each.limit for each in used], error.limit.limit, seconds) from None


def _address() -> str:
    return request.remote_addr or "unknown"


def _username() -> str:
    return f"login-{g.login_username}"


# What flask-limiter wraps; a limit is known by its function's name.


def _registration() -> None: ...


def _login() -> None: ...
