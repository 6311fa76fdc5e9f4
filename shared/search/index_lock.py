"""The lock on everything that is derived from a user's vector log: segments, HNSW indexes, vectors being reindexed."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from shared.db import advisory_locks
from shared.db.engine import Sessions

# The lock belongs to a transaction, because behind a pooler there is no session to which it could belong. While the
# work is done, the transaction is idle. It holds no snapshot then, so it keeps no vacuum and no index from its work.
_TRY = text("""
    SET LOCAL idle_in_transaction_session_timeout = 0;
    SELECT pg_try_advisory_xact_lock(:kind, :user)
""")


@contextmanager
def index_lock(sessions: Sessions, user_id: int) -> Iterator[bool]:
    """Try to take the lock of a user; the value says whether this process has it. It never waits."""
    # The lock has its own connection: work done under it must begin its transaction after the lock is taken, to see
    # what other processes committed.
    with sessions() as session:
        yield bool(session.execute(_TRY, {"kind": advisory_locks.INDEXES, "user": user_id % 2**31}).scalar_one())
