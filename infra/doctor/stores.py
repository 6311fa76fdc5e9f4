"""Checks of Postgres and Redis."""

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
from shared.db.engine import make_engine, refusal
from shared.db.pooler import is_pooled
from shared.db.write_check import write_problem as write_problem_of_postgres
from shared.messaging.redis import make_redis, write_problem
from shared.providers.factory import make_embedders
from shared.search.faiss import segment_storage
from shared.settings import Settings

#: The oldest supported major version.
MIN_POSTGRES_VERSION = 14
MAX_SKEW_SECONDS = 2.0


class _WritesRefusedError(NotCheckedError):
    """Postgres refuses to write, or refuses the connection because it is read-only."""


def postgres(settings: Settings) -> Iterator[Finding]:
    """Postgres is reachable, accepts writes, is recent, migrated and durable, and admits enough connections."""
    try:
        with connect(settings) as connection:
            yield from _check_server(connection, settings)
    except _WritesRefusedError as error:
        yield Finding(
            f"{error}: every request is refused with 503.",
            "Let DATABASE_URL lead to the primary (it may name several servers), and see whether "
            "default_transaction_read_only is on, or the disk full.",
        )
    except NotCheckedError as error:
        yield Finding(str(error), "Check that Postgres runs and that DATABASE_URL is right.")


def vector_store(settings: Settings) -> Iterator[Finding]:
    """The tables of pgvector exist if it is used, and the package of SEGMENTS_URL is installed."""
    if settings.segments_url:
        segment_storage.check_url(settings.segments_url)
    if settings.vector_store != "pgvector":
        return
    with connect(settings) as connection:
        if connection.scalar(text("SELECT to_regclass('pgvector_vectors')")) is None:
            yield Finding(
                "VECTOR_STORE=pgvector, but its tables do not exist.",
                "Install pgvector 0.8 or newer on the server, and run: alembic upgrade head",
            )


def embedders(settings: Settings) -> Iterator[Finding]:
    """Every user's vectors come from an embedder that is configured."""
    configured = make_embedders(settings)
    with connect(settings) as connection:
        query = text("SELECT embedder, count(*) FROM users WHERE embedder IS NOT NULL GROUP BY embedder")
        users = {row.embedder: row.count for row in connection.execute(query)}
    for name, count in users.items():
        if configured.resolve(name).name != name:
            yield Finding(
                f"The vectors of {count} users come from the embedder {name}, which neither EMBEDDER nor "
                "PREVIOUS_EMBEDDER names: these users do not find their older prompts.",
                "Set PREVIOUS_EMBEDDER to this embedder, restart, and run: python -m worker.reindex",
            )
        elif name != configured.current.name:
            yield Finding(
                f"The vectors of {count} users still come from the embedder {name}.",
                "Run: python -m worker.reindex",
                Severity.BEWARE,
            )


def redis(settings: Settings) -> Iterator[Finding]:
    """Redis is reachable, accepts writes, never evicts, persists its data, and has free memory."""
    try:
        with closing(make_redis(settings)) as client:
            info: dict[str, Any] = client.info()  # type: ignore[assignment]
            problem = write_problem(client)
    except NoPermissionError as error:
        raise NotCheckedError("this Redis user may not run INFO") from error
    except RedisError as error:
        yield Finding(f"Redis is unavailable: {error}", "Check that Redis runs and that REDIS_URL is right.")
        return
    if problem is not None:
        yield Finding(
            f"{problem}: prompts are accepted, but workers get no messages.",
            "Let REDIS_URL lead to the primary. Without memory raise maxmemory; without disk, free some.",
        )
    elif info.get("role") == "slave":
        yield Finding("Redis is a replica: what is written there may vanish.", "Let REDIS_URL lead to the primary.")
    policy = info.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        yield Finding(
            f"Redis evicts data when its memory is full (maxmemory-policy is {policy}): prompts may be late, "
            "logins and rate limits may be lost.",
            "Set maxmemory-policy noeviction.",
        )
    if not info.get("aof_enabled"):
        yield Finding(
            "Redis keeps no append-only file: after a crash, queued prompts wait until the reaper finds them.",
            "Set appendonly yes, if your Redis service allows it.",
            Severity.BEWARE,
        )
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if limit and used > 0.8 * limit:
        yield Finding(f"Redis uses {100 * used // limit} % of its memory.", "Raise maxmemory.", Severity.BEWARE)


def clocks(settings: Settings) -> Iterator[Finding]:
    """The clocks of this machine, Postgres and Redis agree: tokens expire by the first, leases by the second."""
    with connect(settings) as connection:
        now = connection.scalar(text("SELECT extract(epoch FROM clock_timestamp())"))
        yield from _check_skew("Postgres", float(now or 0) - time.time())
    try:
        with closing(make_redis(settings)) as client:
            seconds, microseconds = client.time()  # type: ignore[misc]
    except RedisError as error:
        raise NotCheckedError("Redis is unavailable") from error
    yield from _check_skew("Redis", seconds + microseconds / 1e6 - time.time())


@contextmanager
def connect(settings: Settings) -> Iterator[Connection]:
    """A connection to Postgres. Raises NotCheckedError."""
    engine = make_engine(settings, application_name="promptwire-doctor")
    try:
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        if (refused := refusal(error)) is not None:
            raise _WritesRefusedError(refused) from error
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise NotCheckedError(f"Postgres is unavailable: {reason}") from error
    finally:
        engine.dispose()


def _check_server(connection: Connection, settings: Settings) -> Iterator[Finding]:
    if connection.dialect.server_version_info < (MIN_POSTGRES_VERSION,):  # type: ignore[operator]
        yield Finding("PostgreSQL is too old.", f"Upgrade it to {MIN_POSTGRES_VERSION} or newer.")
    if not migrations.is_current(connection):
        yield Finding("The database schema does not match this version of Promptwire.", "Run: alembic upgrade head")
    if is_pooled(connection):
        yield Finding(
            "DATABASE_URL leads to a pooler in transaction mode: each transaction sets its own time limits, and no "
            "statement is prepared, which costs some time.",
            "That works. Without a pooler there, a role or database has other time limits: see docs/deployment.md.",
            Severity.BEWARE,
        )
    for name, severity in (("fsync", Severity.WRONG), ("full_page_writes", Severity.BEWARE)):  # ZFS does not need them
        if _show(connection, name) != "on":
            problem = f"PostgreSQL runs with {name}=off: a crash may lose everything."
            yield Finding(problem, f"Set {name} = on.", severity)
    if _show(connection, "synchronous_commit") == "off":
        yield Finding(
            "PostgreSQL runs with synchronous_commit=off: a crash may lose prompts that were accepted.",
            "Set synchronous_commit = on.",
        )
    yield from _check_connection_limit(connection, settings)
    if migrations.is_current(connection) and (refused := write_problem_of_postgres(connection)) is not None:
        yield Finding(f"A write fails: {refused}.", "See PostgreSQL's log, and whether its disk is full.")


def _show(connection: Connection, name: str) -> str:
    return str(connection.scalar(text("SELECT current_setting(:name)"), {"name": name}))


def _check_skew(where: str, seconds: float) -> Iterator[Finding]:
    if abs(seconds) > MAX_SKEW_SECONDS:
        yield Finding(
            f"The clock of {where} differs from this machine's by {seconds:+.1f} s.", "Synchronise both with NTP."
        )


def _check_connection_limit(connection: Connection, settings: Settings) -> Iterator[Finding]:
    limit = int(_show(connection, "max_connections"))
    per_process = 2 * settings.database_pool_size
    if limit < 3 * per_process:
        yield Finding(
            f"PostgreSQL admits {limit} connections, and each process may open {per_process}.",
            "Raise max_connections to cover all processes, or lower DATABASE_POOL_SIZE.",
            Severity.BEWARE,
        )
