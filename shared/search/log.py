"""Reading the vector log. Writing it is part of a prompt's completion and deletion (`shared/prompts.py`)."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import VectorLogEntry

BATCH = 2_000


class LogRow(NamedTuple):
    """A change: a vector of `dimension` little-endian float32, or a tombstone where it is None."""

    seq: int
    prompt_id: int
    vector: bytes | None


def after(session: Session, user_id: int, seq: int, embedder: str, *, limit: int = BATCH) -> Sequence[LogRow]:
    """At most `limit` changes of a user's index after a number, in order, of one embedder."""
    log = VectorLogEntry
    rows = session.execute(
        select(log.seq, log.prompt_id, log.vector)
        .where(log.user_id == user_id, log.seq > seq, log.embedder.is_(None) | (log.embedder == embedder))
        .order_by(log.seq)
        .limit(limit)
    )
    return [LogRow(row.seq, row.prompt_id, None if row.vector is None else bytes(row.vector)) for row in rows]
