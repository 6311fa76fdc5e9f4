"""What Postgres and Redis are like."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from redis import RedisError
from redis.exceptions import NoPermissionError
from sqlalchemy import Connection, text
from sqlalchemy.exc import SQLAlchemyError

from infra.doctor import Finding, NotCheckedError, Severity
from shared.db import migrations
from shared.db.engine import make_engine
from shared.messaging.redis import make_redis
from shared.providers.factory import make_embedders
from shared.settings import Settings

#: The oldest that is tried.
OLDEST_POSTGRES = 14
MAX_SKEW_SECONDS = 2.0


def postgres(settings: Settings) -> Iterator[Finding]:
    try:
        with _connection(settings) as connection:
            yield from _of_server(connection, settings)
    except NotCheckedError as error:
        yield Finding(str(error), "See whether it runs, and whether DATABASE_URL is right.")


def vector_store(settings: Settings) -> Iterator[Finding]:
    if settings.vector_store != "pgvector":
        return
    with _connection(settings) as connection:
        if connection.scalar(text("SELECT to_regclass('pgvector_vectors')")) is None:
            yield Finding(
                "VECTOR_STORE=pgvector, and its tables are not there.",
                "Install pgvector 0.8 or newer on the server, and run: alembic upgrade head",
            )


def embedders(settings: Settings) -> Iterator[Finding]:
    """Whether users' vectors are by an embedder that is there."""
    made = make_embedders(settings)
    with _connection(settings) as connection:
        query = text("SELECT embedder, count(*) FROM users WHERE embedder IS NOT NULL GROUP BY embedder")
        users = {row.embedder: row.count for row in connection.execute(query)}
    for name, count in users.items():
        if made.resolve(name).name != name:
            yield Finding(
                f"The vectors of {count} users are by the embedder {name}, which EMBEDDER and PREVIOUS_EMBEDDER do "
                "not name: they find nothing that is older.",
                "Set PREVIOUS_EMBEDDER to it, restart, and run: python -m worker.reindex",
            )
        elif name != made.current.name:
            yield Finding(
                f"The vectors of {count} users are still by the embedder {name}.",
                "Run: python -m worker.reindex",
                Severity.BEWARE,
            )


def redis(settings: Settings) -> Iterator[Finding]:
    try:
        with closing(make_redis(settings)) as client:
            info: dict[str, Any] = client.info()  # type: ignore[assignment]
    except NoPermissionError as error:
        raise NotCheckedError("this user of Redis may not ask for INFO") from error
    except RedisError as error:
        yield Finding(f"Redis cannot be used: {error}", "See whether it runs, and whether REDIS_URL is right.")
        return
    policy = info.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        yield Finding(
            f"Redis throws data away when its memory is full (maxmemory-policy is {policy}): work may be late, logins "
            "and limits forgotten.",
            "Set maxmemory-policy noeviction.",
        )
    if not info.get("aof_enabled"):
        yield Finding(
            "Redis keeps no append-only file: after a crash what was queued waits until the reaper finds it.",
            "Set appendonly yes (or, where it is managed, know that it is so).",
            Severity.BEWARE,
        )
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if most and used > 0.8 * most:
        yield Finding(f"Redis uses {100 * used // most} % of its memory.", "Give it more (maxmemory).", Severity.BEWARE)


def clocks(settings: Settings) -> Iterator[Finding]:
    """Tokens expire by this machine's clock, leases by that of Postgres."""
    with _connection(settings) as connection:
        now = connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
        yield from _skewed("Postgres", float(now or 0) - time.time())
    try:
        with closing(make_redis(settings)) as client:
            seconds, microseconds = client.time()  # type: ignore[misc]
    except RedisError as error:
        raise NotCheckedError("Redis cannot be used") from error
    yield from _skewed("Redis", seconds + microseconds / 1e6 - time.time())


@contextmanager
def _connection(settings: Settings) -> Iterator[Connection]:
    engine = make_engine(settings, application_name="promptwire-doctor")
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise NotCheckedError(f"Postgres cannot be used: {reason}") from error
    finally:
        engine.dispose()


def _of_server(connection: Connection, settings: Settings) -> Iterator[Finding]:
    if connection.dialect.server_version_info < (OLDEST_POSTGRES,):  # type: ignore[operator]
        yield Finding("PostgreSQL is too old.", f"Upgrade it to {OLDEST_POSTGRES} or newer.")
    if not migrations.is_current(connection):
        yield Finding("The database has another schema than this version expects.", "Run: alembic upgrade head")
    for name, severity in (("fsync", Severity.WRONG), ("full_page_writes", Severity.BEWARE)):  # ZFS needs no pages
        if _show(connection, name) != "on":
            problem = f"PostgreSQL runs with {name}=off: a crash may lose everything."
            yield Finding(problem, f"Set {name} = on.", severity)
    if _show(connection, "synchronous_commit") == "off":
        yield Finding(
            "PostgreSQL runs with synchronous_commit=off: a crash may lose prompts that were accepted.",
            "Set synchronous_commit = on.",
        )
    yield from _room_for_connections(connection, settings)


def _show(connection: Connection, name: str) -> str:
    return str(connection.scalar(text("SELECT current_setting(:name)"), {"name": name}))


def _skewed(where: str, seconds: float) -> Iterator[Finding]:
    if abs(seconds) > MAX_SKEW_SECONDS:
        yield Finding(f"The clock of {where} is {seconds:+.1f} s off this machine's.", "Have both follow NTP.")


def _room_for_connections(connection: Connection, settings: Settings) -> Iterator[Finding]:
    most = int(_show(connection, "max_connections"))
    each = 2 * settings.database_pool_size
    if most < 3 * each:
        yield Finding(
            f"PostgreSQL admits {most} connections, and each process may take {each}.",
            "Raise max_connections to what all processes may take, or lower DATABASE_POOL_SIZE.",
            Severity.BEWARE,
        )
