"""What users do with batches, and how these change: each step is one function, and its caller commits.

    create → start | fail → … → begin_end → end      `worker/batches` has what happens in between
    cancel

All times are the database's.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.orm import Session

from shared.batches.leases import BatchLease, LeaseLostError
from shared.db.engine import Executor
from shared.db.models import UNFINISHED_BATCH, Batch, BatchStatus, Change, FeedEntry
from shared.errors import BatchEndedError, BatchNotFoundError, UserLimitError
from shared.prompts import feed, scheduling

_COUNTED = """
    SELECT batch_id, count(*) FILTER (WHERE prompts.status = 'completed') AS completed,
        count(*) FILTER (WHERE prompts.status IN ('failed', 'cancelled')) AS failed
    FROM prompts WHERE batch_id = ANY(CAST(:ids AS bigint[])) GROUP BY batch_id
"""
_COUNT_LINES = text(_COUNTED)
_COUNT_UNFINISHED = text("SELECT count(*) FROM batches WHERE user_id = :user_id AND due_at IS NOT NULL")
_LOCK_FILE = text("SELECT FROM files WHERE id = :file_id FOR KEY SHARE")
# Of a batch that has ended: its webhooks get an event, in the order of the user's feed.
_DELIVER = text("""
    INSERT INTO webhook_deliveries (webhook_id, event, seq, batch_id)
    SELECT id, :event, :seq, :batch_id FROM webhooks
    WHERE user_id = :user_id AND disabled_at IS NULL AND (events IS NULL OR :event = ANY(events))
    FOR KEY SHARE
""")
_DELETE_OLD = text("DELETE FROM batches WHERE due_at IS NULL AND created_at < now() - :age")
_ENDED_AT = {
    BatchStatus.COMPLETED: "completed_at",
    BatchStatus.FAILED: "failed_at",
    BatchStatus.CANCELLED: "cancelled_at",
}


class LineCounts(NamedTuple):
    """How many lines a batch has, and how many of them have ended."""

    total: int
    completed: int
    failed: int


class NewBatch(NamedTuple):
    """A batch to be created."""

    user_id: int
    key_id: int | None
    endpoint: str
    input_file_id: int
    completion_window: str
    window: timedelta
    metadata: dict[str, str] | None


def create(session: Session, new: NewBatch, *, limit: int) -> Batch:
    """Add a batch. The caller has found the input file.

    Raises:
        UserLimitError: the user has `limit` batches that have not ended.
    """
    scheduling.lock_users(session, [new.user_id])
    if session.execute(_COUNT_UNFINISHED, {"user_id": new.user_id}).scalar_one() >= limit:
        message = f"You have {limit} unfinished batches, the most that a user may have. Wait until one ends."
        raise UserLimitError(f"{message} (USER_BATCH_LIMIT)", limit="USER_BATCH_LIMIT")
    session.execute(_LOCK_FILE, {"file_id": new.input_file_id})
    values = new._asdict()
    values["expires_at"] = func.now() + values.pop("window")
    values["metadata_"] = values.pop("metadata")
    return session.scalars(insert(Batch).values(values).returning(Batch)).one()


def get(session: Session, user_id: int, batch_id: int, *, lock: bool = False) -> Batch:
    """The user's batch.

    Raises:
        BatchNotFoundError: it does not exist, or belongs to another user.
    """
    wanted = select(Batch).where(Batch.id == batch_id, Batch.user_id == user_id)
    batch = session.scalar(wanted.with_for_update(key_share=True) if lock else wanted)
    if batch is None:
        raise BatchNotFoundError
    return batch


def page(session: Session, user_id: int, *, limit: int, after: int | None = None) -> Sequence[Batch]:
    """The user's batches, newest first, beginning after the batch `after`."""
    wanted = select(Batch).where(Batch.user_id == user_id).order_by(Batch.id.desc()).limit(limit)
    return session.scalars(wanted if after is None else wanted.where(Batch.id < after)).all()


def counts(executor: Executor, batches: Sequence[Batch]) -> dict[int, LineCounts]:
    """The counts of these batches by id, at this moment: from their prompts, or, once they have ended, their files."""
    running = [batch.id for batch in batches if batch.completed_lines is None]
    rows = executor.execute(_COUNT_LINES, {"ids": running}) if running else ()
    counted = {row.batch_id: (row.completed, row.failed) for row in rows}
    return {
        batch.id: LineCounts(
            batch.total_lines,
            *(
                counted.get(batch.id, (0, 0))
                if batch.completed_lines is None
                else (batch.completed_lines, batch.failed_lines or 0)
            ),
        )
        for batch in batches
    }


def cancel(session: Session, user_id: int, batch_id: int) -> Batch:
    """Begin to cancel a batch. Again for one that is cancelling or cancelled, it does nothing.

    Raises:
        BatchNotFoundError: it does not exist, or belongs to another user.
        BatchEndedError: it has ended otherwise.
    """
    batch = get(session, user_id, batch_id, lock=True)
    if batch.status in (BatchStatus.CANCELLING, BatchStatus.CANCELLED):
        return batch
    if batch.status not in UNFINISHED_BATCH:
        raise BatchEndedError(f"The batch has already ended: it is {batch.status}.")
    changes = {"status": BatchStatus.CANCELLING, "cancelling_at": func.now(), "expired_at": None, "due_at": func.now()}
    changed = update(Batch).where(Batch.id == batch_id).values(changes | {"leased_by": None}).returning(Batch)
    return session.scalars(changed, execution_options={"populate_existing": True}).one()


def change(session: Session, batch: BatchLease, **changes: Any) -> None:
    """Change a batch under its lease.

    Raises:
        LeaseLostError: another host has it by now, or its user has cancelled it.
    """
    leased = (Batch.id == batch.id, Batch.leased_by == batch.leased_by, Batch.status == batch.status)
    changed = session.execute(update(Batch).where(*leased).values(changes))
    if not changed.rowcount:  # type: ignore[attr-defined]
        raise LeaseLostError


def end(session: Session, batch: BatchLease, status: BatchStatus, **changes: Any) -> int:
    """End a batch, for good, with an event of its user. Returns the event's number. Raises as `change` does."""
    seq = feed.advance(session, batch.user_id)
    times = {_ENDED_AT[status]: func.now()} if status in _ENDED_AT else {}
    ended = {"status": status, "due_at": None, "leased_by": None, "reserved_tokens": 0}
    change(session, batch, **ended, **times, **changes)
    entry = FeedEntry(user_id=batch.user_id, seq=seq, prompt_id=0, change=Change.BATCH_ENDED, batch_id=batch.id)
    entry.at = func.clock_timestamp()
    session.add(entry)
    parameters = {"event": f"batch.{status}", "seq": seq, "batch_id": batch.id, "user_id": batch.user_id}
    session.execute(_DELIVER, parameters)
    return seq


def purge_old(session: Session, age: timedelta) -> None:
    """Delete batches that have ended and are older."""
    session.execute(_DELETE_OLD, {"age": age})


def window_of(text: str) -> timedelta:
    """The time of a completion window such as `24h`."""
    return timedelta(hours=int(text.removesuffix("h")))
