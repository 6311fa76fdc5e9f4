"""Checks of Postgres and Redis for `GET /readyz`: they write, because a server may answer and yet accept no writes."""

import threading
import time
from collections.abc import Callable

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.db import migrations
from shared.db.engine import refusal
from shared.db.write_check import write_problem
from shared.messaging.queue import Queue

OK = "ok"
#: A result is valid for this long, however many clients ask.
CACHE_SECONDS = 1.0
#: While all is well, a process writes to Postgres at most this often; after a problem, with each check.
WRITE_SECONDS = 5.0


class DependencyChecks:
    """What is wrong with Postgres and Redis, in a few words each."""

    def __init__(
        self,
        autocommit_engine: Engine,
        queue: Queue,
        *,
        cache_seconds: float = CACHE_SECONDS,
        write_seconds: float = WRITE_SECONDS,
    ) -> None:
        self._autocommit_engine = autocommit_engine
        self._write_seconds = write_seconds
        self._write_at = 0.0
        self.postgres = _Cached(self._check_postgres, cache_seconds)
        self.redis = _Cached(lambda: queue.write_problem() or OK, cache_seconds)

    def _check_postgres(self) -> str:
        try:
            with self._autocommit_engine.connect() as connection:
                if not migrations.is_current(connection):
                    return "not migrated"
                if time.monotonic() < self._write_at:
                    return OK
                problem = write_problem(connection)
        except SQLAlchemyError as error:
            problem = refusal(error) or "unavailable"
        self._write_at = 0.0 if problem else time.monotonic() + self._write_seconds
        return problem or OK


class _Cached:
    """The result of a check, which runs once at a time."""

    def __init__(self, check: Callable[[], str], seconds: float) -> None:
        self._check = check
        self._seconds = seconds
        self._lock = threading.Lock()
        self._result = ""
        self._valid_until = 0.0

    def __call__(self) -> str:
        with self._lock:
            if time.monotonic() >= self._valid_until:
                self._result = self._check()
                self._valid_until = time.monotonic() + self._seconds
            return self._result
