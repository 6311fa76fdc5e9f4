"""A batch as JSON: the resource of OpenAI's API, which webhooks and sockets get, too."""

from datetime import datetime
from typing import Any

from shared.batches.batches import LineCounts
from shared.db.models import Batch, BatchStatus
from shared.openai import ids
from shared.openai.ids import IdPrefix

_TIMES = (
    *("created_at", "in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "cancelling_at"),
    "cancelled_at",
)


def batch_object(batch: Batch, counts: LineCounts) -> dict[str, Any]:
    """Render a batch."""
    errors = None if batch.errors is None else {"object": "list", "data": batch.errors}
    return {
        "id": ids.make(IdPrefix.BATCH, batch.id),
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": errors,
        "input_file_id": ids.make(IdPrefix.FILE, batch.input_file_id),
        "completion_window": batch.completion_window,
        "status": batch.status,
        "output_file_id": _file_id(batch.output_file_id),
        "error_file_id": _file_id(batch.error_file_id),
        **{name: _seconds(getattr(batch, name)) for name in _TIMES},
        "expired_at": _seconds(batch.expired_at) if batch.status == BatchStatus.EXPIRED else None,
        "request_counts": counts._asdict(),
        "metadata": batch.metadata_,
    }


def _file_id(number: int | None) -> str | None:
    return None if number is None else ids.make(IdPrefix.FILE, number)


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
