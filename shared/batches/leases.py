"""Leases of batches: one worker host at a time does the next step of a batch. All times are the database's."""

from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import uuid4

from sqlalchemy import text

from shared.db.engine import Executor


class LeaseLostError(Exception):
    """Another host has the batch by now, or its status was changed. Nothing that was not committed counts."""


class BatchLease(NamedTuple):
    """A batch that this host does the next step of. Each field is a column."""

    id: int
    user_id: int
    key_id: int | None
    endpoint: str
    input_file_id: int
    status: str
    total_lines: int
    stored_lines: int
    stored_bytes: int
    reserved_tokens: int
    expires_at: datetime
    expired_at: datetime | None
    leased_by: str
    is_late: bool  #: its completion window is over


_COLUMNS = ", ".join(f"batches.{name}" for name in BatchLease._fields[:-1])
_CLAIM = text(f"""
    WITH next AS MATERIALIZED (
        SELECT id FROM batches WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE batches SET due_at = clock_timestamp() + :lease, leased_by = :leased_by
    FROM next WHERE batches.id = next.id
    RETURNING {_COLUMNS}, expires_at <= now() AS is_late
""")  # noqa: S608  # nosec B608
_RENEW = text("UPDATE batches SET due_at = clock_timestamp() + :pause WHERE id = :id AND leased_by = :leased_by")
_RELEASE = text("""
    UPDATE batches SET due_at = clock_timestamp() + :pause, leased_by = NULL
    WHERE id = :id AND leased_by = :leased_by AND due_at IS NOT NULL
""")


def claim(executor: Executor, lease: timedelta) -> BatchLease | None:
    """Lease the batch that has waited longest for its next step; None if none waits."""
    row = executor.execute(_CLAIM, {"lease": lease, "leased_by": uuid4().hex}).first()
    return None if row is None else BatchLease(*row)


def renew(executor: Executor, batch: BatchLease, lease: timedelta) -> None:
    """Extend the lease.

    Raises:
        LeaseLostError: another host has it by now.
    """
    parameters = {"pause": lease, "id": batch.id, "leased_by": batch.leased_by}
    if not executor.execute(_RENEW, parameters).rowcount:  # type: ignore[attr-defined]
        raise LeaseLostError


def release(executor: Executor, batch: BatchLease, pause: timedelta) -> None:
    """End the lease. The next step comes after the pause, unless the batch has ended."""
    executor.execute(_RELEASE, {"pause": pause, "id": batch.id, "leased_by": batch.leased_by})
