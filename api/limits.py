"""Rate limits: counted in Redis for all API processes together, in memory by each while Redis is away.

Windows are fixed and begin with the first request in them.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from flask import Flask, g, request
from flask_limiter import Limiter, RequestLimit
from limits import RateLimitItem, parse_many
from redis import RedisError

from shared.settings import Settings

FAILED_LOGINS_PER_USERNAME = "10/minute"
FAILED_LOGINS_PER_ADDRESS = "100/minute"
REGISTRATIONS_PER_ADDRESS = "10/hour"


_REDIS_TIMEOUT_SECONDS = 0.25


class Limits:
    """Each method counts one request in its context, and raises flask-limiter's RateLimitExceeded over the limit."""

    def __init__(self, settings: Settings) -> None:
        self._production = settings.app_env == "prod"
        self._submissions = parse_many(settings.prompt_rate_limit)
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
        self._count_submission = limit(settings.prompt_rate_limit, key_func=_caller)(_submission)
        self._count_registration = limit(REGISTRATIONS_PER_ADDRESS)(_registration)
        by_username = limit(FAILED_LOGINS_PER_USERNAME, key_func=_username)
        self._count_login = by_username(limit(FAILED_LOGINS_PER_ADDRESS)(_login))

    def init_app(self, app: Flask) -> None:
        self._limiter.init_app(app)

    def submission(self) -> None:
        """Counts a prompt of the caller."""
        _counted(self._count_submission)

    def registration(self) -> None:
        """Counts a registration from this address, in production."""
        if self._production:
            _counted(self._count_registration)

    @contextmanager
    def login(self, username: str) -> Iterator[None]:
        """Counts a failed login: one whose block raises.

        It is counted before it is tried, and one of a username is tried at a time (in a process), so that many at once
        cannot all slip through, nor hinder each other when they are right.
        """
        g.login_username = username
        with self._turns[hash(username) % len(self._turns)]:
            _counted(self._count_login)
            yield
            with suppress(RedisError):
                for used in self._limiter.current_limits:
                    self._limiter.limiter.hit(used.limit, *used.request_args, cost=-1)

    def exceeded(self) -> tuple[list[RateLimitItem], RequestLimit | None]:
        """The policy of this request, and the limit that it ran into."""
        seen = self._limiter.current_limits
        breached = next((used for used in seen if used.breached), None)
        items = [used.limit for used in seen]
        is_submission = any(item in self._submissions for item in items)
        return (self._submissions if is_submission else items), breached


def _counted(count: Callable[[], None]) -> None:
    """Counts; again, in memory, if Redis has just been found away.

    flask-limiter turns to memory for the request that finds it, but not for those that find it at the same time.
    """
    try:
        count()
    except RedisError:
        count()


def _address() -> str:
    return request.remote_addr or "unknown"


def _caller() -> str:
    return f"user-{g.caller.id}"


def _username() -> str:
    return f"login-{g.login_username}"


# What flask-limiter wraps; a limit is known by its function's name.


def _submission() -> None: ...


def _registration() -> None: ...


def _login() -> None: ...
