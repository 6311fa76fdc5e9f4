"""The worker hosts as Postgres knows them: each writes a row every few seconds (`worker/maintenance/presence.py`)."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from shared.db.engine import Executor

#: A host that has not written for this long is shown as lost.
LOST_AFTER_SECONDS = 30
#: After this long it is no longer shown: most hosts were stopped on purpose.
FORGOTTEN_AFTER_SECONDS = 600
_MAX_HOSTS = 1_000


class Presence(NamedTuple):
    """The row that a host writes. Each field is a column."""

    id: UUID  #: new with each start
    host: str
    pid: int  #: of its main process
    version: str
    pool: str
    concurrency: int
    models: list[str]  #: the routes that it answers
    active_tasks: int


class Host(NamedTuple):
    """A host as admins see it."""

    host: str
    pid: int
    version: str
    pool: str
    concurrency: int
    models: list[str]
    active_tasks: int
    started_at: datetime
    seen_at: datetime
    is_lost: bool


# After a pause of all hosts, each finds the others forgotten. They write, or delete, at the same time.
_WRITE = text("""
    WITH forgotten AS (
        DELETE FROM workers WHERE id = ANY(ARRAY(
            SELECT id FROM workers WHERE seen_at < now() - make_interval(secs => :forgotten) AND id <> :id
            FOR UPDATE SKIP LOCKED
        ))
    )
    INSERT INTO workers (id, host, pid, version, pool, concurrency, models, active_tasks)
    VALUES (:id, :host, :pid, :version, :pool, :concurrency, :models, :active_tasks)
    ON CONFLICT (id) DO UPDATE SET active_tasks = excluded.active_tasks, seen_at = now()
""")
_LIST = text(f"""
    SELECT {", ".join(Host._fields[:-1])}, seen_at < now() - make_interval(secs => :lost)
    FROM workers WHERE seen_at >= now() - make_interval(secs => :forgotten) ORDER BY host, started_at LIMIT :limit
""")  # noqa: S608  # nosec B608


def write(executor: Executor, presence: Presence) -> None:
    """Write the row of a host, and delete those of hosts that are gone."""
    executor.execute(_WRITE, presence._asdict() | {"forgotten": FORGOTTEN_AFTER_SECONDS})


def list_all(executor: Executor) -> list[Host]:
    """The hosts, by name."""
    parameters = {"lost": LOST_AFTER_SECONDS, "forgotten": FORGOTTEN_AFTER_SECONDS, "limit": _MAX_HOSTS}
    return [Host(*row) for row in executor.execute(_LIST, parameters)]
