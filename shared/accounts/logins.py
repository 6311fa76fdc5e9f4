"""Logins. A login is a token family: a chain of refresh tokens, of which only the newest may be used."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import TokenFamily, User


def start(session: Session, user_id: int, family: UUID, refresh_id: UUID, days: int) -> None:
    """Start a login whose first refresh token is `refresh_id`. It expires after `days` unless it is refreshed."""
    session.execute(
        insert(TokenFamily).values(id=family, user_id=user_id, current=refresh_id, expires_at=_in_days(days))
    )


def rotate(session: Session, family: UUID, spent: UUID, refresh_id: UUID, days: int) -> bool:
    """Replace the newest refresh token of a login. Returns False unless the login is live and `spent` is its newest."""
    changed = session.execute(
        update(TokenFamily)
        .where(TokenFamily.id == family, TokenFamily.current == spent, _is_live())
        .values(current=refresh_id, expires_at=_in_days(days))
        .returning(TokenFamily.id)
    )
    return changed.first() is not None


def end(session: Session, family: UUID) -> None:
    """End a login. All of its tokens become invalid."""
    _revoke(session, TokenFamily.id == family)


def end_all(session: Session, user_id: int) -> None:
    """End all logins of a user."""
    _revoke(session, TokenFamily.user_id == user_id)


class LoggedIn(NamedTuple):
    """The user of a live login."""

    id: int
    username: str
    is_admin: bool


def find_user(executor: Executor, family: UUID) -> LoggedIn | None:
    """The user of a live login."""
    row = executor.execute(_USER_OF_LIVE_LOGIN, {"family": family}).first()
    return None if row is None else LoggedIn(*row)


def list_recently_ended(executor: Executor, within: timedelta) -> Sequence[int]:
    """The ids of users whose cached tokens must be forgotten, because of a change within this time.

    A login was ended, by a logout or a new password, or the user has become an admin, or is none any more.
    """
    since = func.now() - within
    ended = select(TokenFamily.user_id).where(TokenFamily.revoked_at > since)
    return executor.scalars(ended.union(select(User.id).where(User.admin_changed_at > since))).all()


def purge_expired(session: Session) -> None:
    """Delete logins that have expired."""
    session.execute(delete(TokenFamily).where(TokenFamily.expires_at < func.now()))


def _in_days(days: int) -> ColumnElement[datetime]:
    return func.now() + func.make_interval(0, 0, 0, days)


def _is_live() -> ColumnElement[bool]:
    return TokenFamily.revoked_at.is_(None) & (TokenFamily.expires_at > func.now())


_USER_OF_LIVE_LOGIN = (
    select(User.id, User.username, User.is_admin)
    .join(TokenFamily, TokenFamily.user_id == User.id)
    .where(TokenFamily.id == bindparam("family"), _is_live(), User.deleted_at.is_(None))
)


def _revoke(session: Session, condition: ColumnElement[bool]) -> None:
    session.execute(
        update(TokenFamily).where(condition, TokenFamily.revoked_at.is_(None)).values(revoked_at=func.now())
    )
