"""The events of batches in the database: what they say about a batch, and the event of one that has ended."""

from datetime import datetime
from typing import Any, NamedTuple

#: SQL: what the event has, from a row of `batches`; NULL without one. The ids are those of OpenAI's API. The counts of
#: a batch that has not ended are those of its last progress.
EVENT_DATA = """
    CASE WHEN batches.id IS NOT NULL THEN jsonb_build_object(
        'id', 'batch_' || batches.id, 'status', batches.status, 'endpoint', batches.endpoint,
        'input_file_id', 'file-' || input_file_id, 'output_file_id', 'file-' || output_file_id,
        'error_file_id', 'file-' || error_file_id,
        'request_counts', jsonb_build_object(
            'total', total_lines,
            'completed', coalesce(completed_lines, CAST(announced ->> 'completed' AS bigint), 0),
            'failed', coalesce(failed_lines, CAST(announced ->> 'failed' AS bigint), 0)
        ),
        'metadata', coalesce(batches.metadata, '{}')
    ) END
"""


class EndedBatch(NamedTuple):
    """The event of a batch in its user's feed."""

    seq: int
    at: datetime
    data: dict[str, Any]

    @property
    def event(self) -> str:
        """The event's type."""
        return f"batch.{self.data['status']}"
