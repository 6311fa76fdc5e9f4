"""The lock on everything that is derived from a user's vector log: segments, HNSW indexes, vectors being reindexed."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from shared.db.engine import Sessions

_LOCK_CLASS = 7_769  # the first key of all our advisory locks of this kind


@contextmanager
def index_lock(sessions: Sessions, user_id: int) -> Iterator[bool]:
    """Try to take the lock of a user; the value says whether this process has it. It never waits."""
    lock = {"kind": _LOCK_CLASS, "user": user_id % 2**31}
    with sessions() as session:
        # The lock has its own connection: work done under it must begin its transaction after the lock is taken, to
        # see what other processes committed.
        connection = session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        acquired = connection.execute(text("SELECT pg_try_advisory_lock(:kind, :user)"), lock).scalar_one()
        try:
            yield bool(acquired)
        finally:
            if acquired:
                connection.execute(text("SELECT pg_advisory_unlock(:kind, :user)"), lock)
