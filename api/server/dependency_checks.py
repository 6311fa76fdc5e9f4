"""Checks of Postgres and Redis for `GET /readyz`: they write, because a server may answer and yet accept no writes."""

import time

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.cached_result import CachedResult
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
        self.postgres = CachedResult(self._check_postgres, cache_seconds)
        self.redis = CachedResult(lambda: queue.write_problem() or OK, cache_seconds)

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
