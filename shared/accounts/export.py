"""All prompts of a user, in pages, for an export of any size."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, text

from shared.db.engine import Executor
from shared.prompts import queries
from shared.prompts.queries import PromptRow
from shared.prompts.sizes import EXPORTED_BYTES

#: The most that a page has, in rows and in bytes of their texts; a longer prompt is a page of its own.
MAX_ROWS = 200
MAX_BYTES = 256 * 1024


class ExportedPrompt(NamedTuple):
    """A prompt, and what else is known of it. Each field but `prompt` is a column."""

    prompt: PromptRow
    request_id: str
    queued_at: datetime
    key_id: int | None
    used_prompt_tokens: int
    used_completion_tokens: int
    emptied_at: datetime | None
    request: dict[str, Any] | None
    api_request: dict[str, Any] | None
    batch_id: int | None


_COLUMNS = ", ".join((*(column.name for column in queries.COLUMNS), *ExportedPrompt._fields[1:]))
# PostgreSQL knows the length of a stored text without reading it, and adds the lengths up before it reads any.
_PAGE = text(f"""
    SELECT {_COLUMNS}
    FROM (
        SELECT id, size, sum(size) OVER (ORDER BY id) AS running FROM (
            SELECT id, {EXPORTED_BYTES} AS size
            FROM prompts WHERE user_id = :user_id AND id > :after AND id <= :last ORDER BY id LIMIT :limit
        ) AS following
    ) AS sums
    JOIN prompts USING (id)
    WHERE running <= :max_bytes OR running = size
    ORDER BY id
""")  # noqa: S608  # nosec B608
_NEWEST = text("SELECT coalesce(max(id), 0) FROM prompts WHERE user_id = :user_id")


def newest_id(executor: Executor, user_id: int) -> int:
    """The id of the user's newest prompt, or 0. Prompts that are submitted later are not exported."""
    return int(executor.execute(_NEWEST, {"user_id": user_id}).scalar_one())


def page(executor: Executor, user_id: int, *, after: int, last: int) -> list[ExportedPrompt]:
    """The user's next prompts, oldest first, with ids above `after` and up to `last`."""
    parameters = {"user_id": user_id, "after": after, "last": last, "limit": MAX_ROWS, "max_bytes": MAX_BYTES}
    rows = executor.execute(_PAGE, parameters).all()
    prompts = queries.with_queue_state(executor, [PromptRow.from_row(row) for row in rows])
    return [_exported(prompt, row) for prompt, row in zip(prompts, rows, strict=True)]


def _exported(prompt: PromptRow, row: Row[Any]) -> ExportedPrompt:
    return ExportedPrompt(prompt, *row[len(queries.COLUMNS) :])
