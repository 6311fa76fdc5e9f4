"""Storing the lines of a batch as prompts, a group in a transaction, by COPY.

A group is stored together with the position after it, under the lease of the batch. So a worker that is killed, or
that has lost the lease, stores all of a group or nothing, and the next worker goes on after it.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.batches.leases import BatchLease, LeaseLostError
from shared.batches.lines import BatchLine
from shared.db.copy import copy_rows
from shared.db.models import Priority
from shared.prompts import scheduling
from shared.prompts.submission import NewPrompt

_COLUMNS = (*NewPrompt._fields, "batch_id", "batch_line", "turn", "due_at", "attempt_limit")
_DUE_AT = text("SELECT now() + :grace")
_ADVANCE = text("""
    UPDATE batches SET stored_lines = :line, stored_bytes = :position
    WHERE id = :id AND leased_by = :leased_by AND status = 'in_progress'
""")


class LineLimits(NamedTuple):
    """What holds for each prompt that is a line."""

    grace: timedelta  #: SUBMIT_GRACE_SECONDS
    attempt_limit: int  #: MAX_ATTEMPTS
    running: int | None  #: USER_RUNNING_LIMIT


def store(
    session: Session,
    batch: BatchLease,
    lines: Sequence[BatchLine],
    routes: Sequence[str],
    reserved: Sequence[int],
    limits: LineLimits,
) -> None:
    """Store the next lines of a batch. Wake up workers for them after the commit.

    Raises:
        LeaseLostError: the lease is another worker's by now, or the batch was cancelled.
    """
    scheduling.lock_users(session, [batch.user_id])
    turns = scheduling.new_turns(session, batch.user_id, routes, Priority.LOW, running_limit=limits.running)
    due_at = session.execute(_DUE_AT, {"grace": limits.grace}).scalar_one()
    rows = [
        (*_prompt(batch, line, route, tokens), batch.id, line.number, turn, due_at, limits.attempt_limit)
        for line, route, tokens, turn in zip(lines, routes, reserved, turns, strict=True)
    ]
    copy_rows(session, "prompts", _COLUMNS, rows)
    last = {"line": lines[-1].number, "position": lines[-1].end, "id": batch.id, "leased_by": batch.leased_by}
    if not session.execute(_ADVANCE, last).rowcount:  # type: ignore[attr-defined]
        raise LeaseLostError


def _prompt(batch: BatchLease, line: BatchLine, route: str, reserved: int) -> NewPrompt:
    parsed = line.parsed
    return NewPrompt(
        user_id=batch.user_id,
        prompt_text=parsed.prompt_text,
        websocket=False,
        request_id=f"batch_{batch.id}/{line.number}",
        priority=Priority.LOW,
        route=route,
        key_id=batch.key_id,
        reserved_tokens=reserved,
        request=parsed.asked.stored,
        request_hash=parsed.asked.hash,
        metadata=None if parsed.metadata is None else dict(parsed.metadata),
        api=parsed.api,
        api_request=parsed.api_request,
    )
