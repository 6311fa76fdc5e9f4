"""A user's feed: every prompt that ends or is deleted gets the user's next number.

The number is taken under the user's row lock, in the transaction that makes the change, and the lock is held until
the commit. So numbers become visible in order and without gaps, and whoever has seen number n asks for `seq > n`.

Lock order everywhere: prompts first, then their users, both in the order of their ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Row, bindparam, delete, func, select, text, update
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import Change, FeedEntry, User

# Those who join ask these, ten thousand at once: the statements are made once, of tables, which takes less than of
# entities.
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
_NEWER = select(_users.id, _users.seq).join_from(
    _known, User.__table__, (_users.id == _known.c.user_id) & (_users.seq > _known.c.seq)
)


@dataclass(frozen=True, slots=True)
class FinishedPrompt:
    """An ended prompt as its event tells it: as it was at that number, though it may have been retried since."""

    user_id: int
    username: str
    seq: int
    change: str
    prompt_id: int
    attempt: int
    websocket: bool
    request_id: str
    prompt_text: str
    response_text: str | None
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_from: int | None
    error: str | None
    created_at: datetime
    at: datetime


@dataclass(frozen=True, slots=True)
class Replay:
    """A page of a feed: what to tell, the number it reaches, and whether there is more after that."""

    endings: list[FinishedPrompt]
    reached: int
    more: bool


_OF_AN_ANSWER = ("response_text", "model", "prompt_tokens", "completion_tokens", "cached_from")
_REPLAY = text("""
    SELECT feed.user_id, username, feed.seq, change, feed.prompt_id, attempt, websocket, request_id, prompt_text,
        response_text, model, prompt_tokens, completion_tokens, cached_from, feed.error, prompts.created_at, at
    FROM feed JOIN users ON users.id = feed.user_id LEFT JOIN prompts ON prompts.id = feed.prompt_id AND websocket
    WHERE feed.user_id = :user_id AND feed.seq > :after
    ORDER BY feed.seq
    LIMIT :limit
""")


def advance(session: Session, user_id: int) -> int:
    """Locks the user until the commit and takes their next number."""
    changed = update(User).where(User.id == user_id).values(seq=User.seq + 1).returning(User.seq)
    return session.execute(changed).scalar_one()


def position(executor: Executor, user_id: int, since: int | None) -> tuple[int, bool]:
    """The user's newest number, and whether everything after `since` can still be told, if it is given.

    It cannot if some of it was purged, or if `since` is a number from the future.
    """
    if since is None:
        return executor.execute(_NEWEST, {"user_id": user_id}).scalar_one(), True
    seq, oldest = executor.execute(_NEWEST_AND_OLDEST, {"user_id": user_id}).one()
    return seq, since == seq if oldest is None else bool(oldest - 1 <= since <= seq)


def newer(executor: Executor, known: Mapping[int, int]) -> dict[int, int]:
    """Of these users, given with the newest number that is known of each, those who have a higher one by now."""
    rows = executor.execute(_NEWER, {"user_ids": list(known.keys()), "seqs": list(known.values())})
    return {row.id: row.seq for row in rows}


def replay(executor: Executor, user_id: int, after: int, *, limit: int = 200) -> Replay:
    """The endings after a number, in order, of prompts with `websocket` set; those of deleted prompts are gone."""
    rows = executor.execute(_REPLAY, {"user_id": user_id, "after": after, "limit": limit}).all()
    return Replay(
        endings=[_ending(row) for row in rows if row.attempt is not None and row.change != Change.DELETED],
        reached=rows[-1].seq if rows else after,
        more=len(rows) == limit,
    )


def _ending(row: Row[Any]) -> FinishedPrompt:
    values = row._asdict()
    if row.change != Change.COMPLETED:  # the prompt may have been retried since
        values.update(dict.fromkeys(_OF_AN_ANSWER))
    return FinishedPrompt(**values)


def purge(session: Session, retention: timedelta) -> None:
    """Forgets what is older than the retention."""
    session.execute(delete(FeedEntry).where(FeedEntry.at < func.now() - retention))
