"""A user's feed: every prompt that finishes or is deleted gets the user's next number.

A vector that is added later gets one, too (`Change.EMBEDDED`). Its entry belongs to no prompt, so readers pass over it.

The number is taken under the user's row lock, in the transaction that makes the change, and the lock is held until
the commit. So numbers become visible in order and without gaps, and a reader that has seen number n asks for `seq > n`.

Lock order everywhere: prompts first, then the advisory locks of `completion.py`, then their users. Rows are locked in
the order of their ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Row, bindparam, delete, func, select, text, update
from sqlalchemy.orm import Session

from shared.batches.ended_event import EVENT_DATA, EndedBatch
from shared.db.engine import Executor
from shared.db.models import Change, FeedEntry, User
from shared.prompts.answer import Answer
from shared.prompts.sizes import EVENT_BYTES

#: The largest page of a feed. A socket that reads slowly holds one while it catches up; each further one is a query.
MAX_ENTRIES = 200
MAX_BYTES = 256 * 1024

# Built once, and from tables: ten thousand sockets that join at once execute them, and entities would cost more.
_users, _feed = User.__table__.c, FeedEntry.__table__.c
_one = _users.id == bindparam("user_id")
_NEWEST = select(_users.seq).where(_one)
_NEWEST_AND_OLDEST = select(
    _users.seq, select(func.min(_feed.seq)).where(_feed.user_id == bindparam("user_id")).scalar_subquery()
).where(_one)
_known = (
    func.unnest(bindparam("user_ids", type_=ARRAY(BigInteger)), bindparam("seqs", type_=ARRAY(BigInteger)))
    .table_valued("user_id", "seq")
    .render_derived("known")
)
_CHANGED = select(_users.id, _users.seq).join_from(
    _known, User.__table__, (_users.id == _known.c.user_id) & (_users.seq != _known.c.seq)
)


@dataclass(frozen=True, slots=True)
class FinishedPrompt:
    """A finished prompt as its event shows it: as it was at that number, though it may have been retried since."""

    user_id: int
    username: str
    seq: int
    change: str
    prompt_id: int
    attempt: int
    websocket: bool
    request_id: str
    route: str
    metadata: dict[str, str] | None
    prompt_text: str
    error: str | None
    created_at: datetime
    at: datetime
    answer: Answer


@dataclass(frozen=True, slots=True)
class DeletedPrompt:
    """A prompt that was deleted."""

    seq: int
    prompt_id: int
    at: datetime


@dataclass(frozen=True, slots=True)
class FeedPage:
    """A page of a feed: the events in it, the number it reaches, and whether there is more after that.

    `begins_after` is the number before its first entry. It is higher than the one that was asked for if the entries in
    between are not kept any more.
    """

    begins_after: int
    events: list[FinishedPrompt | DeletedPrompt | EndedBatch]
    reached: int
    more: bool


_COLUMNS = f"""
    user_id, username, seq, change, prompt_id, attempt, websocket, request_id, route, metadata, prompt_text, error,
    created_at, at,
    {", ".join(Answer._fields)}
"""
_ANSWER = slice(14, 14 + len(Answer._fields))
# PostgreSQL knows the length of a stored text without reading it, and adds the lengths up before it reads any.
_READ = text(f"""
    SELECT {_COLUMNS}, total, batch FROM (
        SELECT *, sum(size) OVER (ORDER BY seq) AS running, count(*) OVER () AS total FROM (
            SELECT feed.user_id, username, feed.seq, change, feed.prompt_id, attempt, websocket, request_id,
                route, prompts.metadata, prompt_text, feed.error, prompts.created_at, at, {", ".join(Answer._fields)},
                {EVENT_BYTES} AS size, {EVENT_DATA} AS batch
            FROM feed JOIN users ON users.id = feed.user_id
            LEFT JOIN prompts ON prompts.id = feed.prompt_id AND (websocket OR :everything)
            LEFT JOIN batches ON batches.id = feed.batch_id
            WHERE feed.user_id = :user_id AND feed.seq > :after
            ORDER BY feed.seq
            LIMIT :limit
        ) AS entries
    ) AS sums
    WHERE running <= :max_bytes OR running = size
    ORDER BY seq
""")  # noqa: S608  # nosec B608


def advance(session: Session, user_id: int) -> int:
    """Lock the user until the commit, and take their next number."""
    changed = update(User).where(User.id == user_id).values(seq=User.seq + 1).returning(User.seq)
    return session.execute(changed).scalar_one()


def position(executor: Executor, user_id: int, since: int | None) -> tuple[int, bool]:
    """The user's newest number, and whether the feed still has everything after `since`, if that is given.

    It has not if some of it was purged, or if `since` is a number from the future.
    """
    if since is None:
        return executor.execute(_NEWEST, {"user_id": user_id}).scalar_one(), True
    seq, oldest = executor.execute(_NEWEST_AND_OLDEST, {"user_id": user_id}).one()
    return seq, since == seq if oldest is None else bool(oldest - 1 <= since <= seq)


def changed(executor: Executor, known: Mapping[int, int]) -> dict[int, int]:
    """The newest numbers of those users whose newest number is not the known one, which is given by user.

    It is lower only if an older state of the database was restored.
    """
    rows = executor.execute(_CHANGED, {"user_ids": list(known.keys()), "seqs": list(known.values())})
    return {row.id: row.seq for row in rows}


def read(
    executor: Executor,
    user_id: int,
    after: int,
    *,
    everything: bool = False,
    limit: int = MAX_ENTRIES,
    max_bytes: int = MAX_BYTES,
) -> FeedPage:
    """The events after a number, in order: prompts with `websocket` set that have not been deleted, and batches.

    With `everything`, also prompts without `websocket`, and deletions.

    The page has at most `limit` entries, and ends where their texts would have more than `max_bytes` of UTF-8 together,
    but has at least one.
    """
    wanted = {"user_id": user_id, "after": after, "everything": everything, "limit": limit, "max_bytes": max_bytes}
    rows = executor.execute(_READ, wanted).all()
    events = map(_event, rows)
    return FeedPage(
        begins_after=rows[0].seq - 1 if rows else after,
        events=[each for each in events if each and (everything or not isinstance(each, DeletedPrompt))],
        reached=rows[-1].seq if rows else after,
        more=bool(rows) and (rows[0].total == limit or rows[0].total > len(rows)),
    )


def _event(row: Row[Any]) -> FinishedPrompt | DeletedPrompt | EndedBatch | None:
    """The event of an entry; None if the prompt has none, or is gone: its deletion is a later entry."""
    if row.batch is not None:
        return EndedBatch(row.seq, row.at, row.batch)
    if row.change == Change.DELETED:
        return DeletedPrompt(row.seq, row.prompt_id, row.at)
    return None if row.attempt is None else _finished(row)


def _finished(row: Row[Any]) -> FinishedPrompt:
    columns, answer = row[: _ANSWER.start], Answer(*row[_ANSWER])
    # A prompt that was retried since may have an answer that belongs to a later number.
    values = [*columns, answer if row.change == Change.COMPLETED else Answer()]
    return FinishedPrompt(*values)


def purge(session: Session, retention: timedelta) -> None:
    """Delete entries that are older than the retention."""
    session.execute(delete(FeedEntry).where(FeedEntry.at < func.now() - retention))
