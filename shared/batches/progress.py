"""The progress of a batch while it is worked on: for its driver, and for the sockets and webhooks of its user.

Progress is a convenience: it has no number in the feed and is not replayed. The database has what was announced last,
so that nothing is announced twice, whichever host has the batch.
"""

from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.batches.leases import BatchLease
from shared.db.engine import Executor
from shared.openai import ids
from shared.openai.ids import IdPrefix

#: The type of the event.
PROGRESS_EVENT = "batch.progress"
#: The shortest time between two events of a batch, for sockets and for webhooks.
SOCKET_INTERVAL = timedelta(seconds=1)
WEBHOOK_INTERVAL = timedelta(seconds=10)

_COUNT = text("""
    SELECT count(*) FILTER (WHERE status = 'completed') AS completed,
        count(*) FILTER (WHERE status IN ('failed', 'cancelled')) AS failed,
        count(*) FILTER (WHERE due_at IS NOT NULL) AS unfinished,
        coalesce(sum(reserved_tokens) FILTER (WHERE due_at IS NOT NULL), 0) AS reserved
    FROM prompts WHERE batch_id = :id
""")
_RECORD = text("""
    WITH new AS (
        SELECT jsonb_build_object(
            'status', CAST(:status AS text), 'completed', CAST(:completed AS bigint), 'failed', CAST(:failed AS bigint)
        ) AS progress
    )
    UPDATE batches SET announced = progress, announced_at = clock_timestamp()
    FROM new
    WHERE id = :id AND leased_by = :leased_by AND announced IS DISTINCT FROM progress
        AND (announced_at IS NULL OR announced_at <= clock_timestamp() - CAST(:interval AS interval))
""")
# A delivery shows the batch as it is when it is sent, so that one pending delivery is enough.
_DELIVER = text("""
    WITH due AS (
        UPDATE batches SET progress_delivered_at = clock_timestamp()
        WHERE id = :id AND leased_by = :leased_by AND announced_at > coalesce(progress_delivered_at, '-infinity')
            AND (
                progress_delivered_at IS NULL
                OR progress_delivered_at <= clock_timestamp() - CAST(:interval AS interval)
            )
        RETURNING id, user_id
    )
    INSERT INTO webhook_deliveries (webhook_id, event, batch_id)
    SELECT webhooks.id, :event, due.id FROM webhooks JOIN due USING (user_id)
    WHERE disabled_at IS NULL AND :event = ANY(events) AND NOT EXISTS (
        SELECT FROM webhook_deliveries AS earlier
        WHERE earlier.webhook_id = webhooks.id AND earlier.status = 'pending' AND earlier.seq IS NULL
            AND earlier.batch_id = due.id
    )
    FOR KEY SHARE OF webhooks
""")


class Progress(NamedTuple):
    """The prompts of a batch: how many have ended and how, how many have not, and what the latter reserve."""

    completed: int
    failed: int
    unfinished: int
    reserved: int


def count(executor: Executor, batch_id: int) -> Progress:
    """The prompts of a batch at this moment."""
    return Progress(*executor.execute(_COUNT, {"id": batch_id}).one())


def record(session: Session, batch: BatchLease, progress: Progress) -> bool:
    """Record progress that is to be announced, and deliver it to webhooks. The caller commits, then announces it.

    Returns:
        False if it must not be announced: it has not changed, the last time is too recent, or the lease was lost.
    """
    lease = {"id": batch.id, "leased_by": batch.leased_by}
    new = {"status": batch.status, "completed": progress.completed, "failed": progress.failed}
    recorded = session.execute(_RECORD, lease | new | {"interval": SOCKET_INTERVAL})
    session.execute(_DELIVER, lease | {"event": PROGRESS_EVENT, "interval": WEBHOOK_INTERVAL})
    return bool(recorded.rowcount)  # type: ignore[attr-defined]


def event_data(batch: BatchLease, progress: Progress) -> dict[str, Any]:
    """What the event says about a batch."""
    counts = {"total": batch.total_lines, "completed": progress.completed, "failed": progress.failed}
    return {"id": ids.make(IdPrefix.BATCH, batch.id), "status": batch.status, "request_counts": counts}
