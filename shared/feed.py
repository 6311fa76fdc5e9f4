"""A user's feed: every prompt that ends or is deleted gets the user's next number.

The number is taken under the user's row lock, in the transaction that makes the change, and the lock is held until
the commit. So numbers become visible in order and without gaps, and whoever has seen number n asks for `seq > n`.

Lock order everywhere: prompts first, then their users.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from shared.models import Change, FeedEntry, Prompt, User


@dataclass(frozen=True, slots=True)
class Ending:
    """An ended prompt as its event tells it: the feed's entry joined with its prompt."""

    entry: FeedEntry
    prompt: Prompt
    username: str
    embedder: str | None = None  #: the user's, at that moment (not in a replay)


@dataclass(frozen=True, slots=True)
class Replay:
    """A page of a feed: what to tell, the number it reaches, and whether there is more after that."""

    endings: list[Ending]
    reached: int
    more: bool


class Advanced(NamedTuple):
    """A user whose number was just raised."""

    seq: int
    username: str
    embedder: str | None


def advance(session: Session, user_id: int) -> Advanced:
    """Locks the user until the commit and takes their next number."""
    returned = (User.seq, User.username, User.embedder)
    row = session.execute(update(User).where(User.id == user_id).values(seq=User.seq + 1).returning(*returned)).one()
    return Advanced(*row)


def newest(session: Session, user_ids: Collection[int]) -> dict[int, int]:
    """The newest number of each of these users."""
    rows = session.execute(select(User.id, User.seq).where(User.id.in_(user_ids)))
    return {row.id: row.seq for row in rows}


def keeps(session: Session, user_id: int, since: int) -> bool:
    """Whether everything after `since` can still be told: nothing of it was purged, and `since` is no future number."""
    seq, oldest = session.execute(
        select(User.seq, select(func.min(FeedEntry.seq)).where(FeedEntry.user_id == user_id).scalar_subquery()).where(
            User.id == user_id
        )
    ).one()
    if oldest is None:
        return bool(since == seq)
    return bool(oldest - 1 <= since <= seq)


def replay(session: Session, user_id: int, after: int, *, limit: int = 200) -> Replay:
    """The endings after a number, in order, of prompts with `websocket` set; those of deleted prompts are gone."""
    rows = session.execute(
        select(FeedEntry, Prompt, User.username)
        .join(User, User.id == FeedEntry.user_id)
        .outerjoin(Prompt, (Prompt.id == FeedEntry.prompt_id) & Prompt.websocket)
        .where(FeedEntry.user_id == user_id, FeedEntry.seq > after)
        .order_by(FeedEntry.seq)
        .limit(limit)
    ).all()
    return Replay(
        endings=[
            Ending(entry, prompt, username)
            for entry, prompt, username in rows
            if prompt is not None and entry.change != Change.DELETED
        ],
        reached=rows[-1][0].seq if rows else after,
        more=len(rows) == limit,
    )


def purge(session: Session, retention: timedelta) -> None:
    """Forgets what is older than the retention."""
    session.execute(delete(FeedEntry).where(FeedEntry.at < func.now() - retention))
