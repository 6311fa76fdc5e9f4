"""Logins. A login is a token family: a chain of refresh tokens, of which only the newest may be used."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Interval, bindparam, delete, func, insert, select, union, update
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import ApiKey, TokenFamily, User
from shared.errors import LoginNotFoundError

#: How many logins a list has: those that were used last. A program that logs in for each call has thousands.
MAX_LISTED = 100
#: How much of a user agent is kept.
MAX_USER_AGENT_LENGTH = 200


class Device(NamedTuple):
    """The client of a login, at the last login or refresh."""

    address: str
    user_agent: str | None


def start(session: Session, user_id: int, family: UUID, refresh_id: UUID, days: int, device: Device) -> None:
    """Start a login whose first refresh token is `refresh_id`. It expires after `days` unless it is refreshed."""
    session.execute(insert(TokenFamily).values(id=family, user_id=user_id, **_used(refresh_id, days, device)))


def rotate(session: Session, family: UUID, spent: UUID, refresh_id: UUID, days: int, device: Device) -> bool:
    """Replace the newest refresh token of a login. Returns False unless the login is live and `spent` is its newest."""
    changed = session.execute(
        update(TokenFamily)
        .where(TokenFamily.id == family, TokenFamily.current == spent, _is_live())
        .values(_used(refresh_id, days, device))
        .returning(TokenFamily.id)
    )
    return changed.first() is not None


class LiveLogin(NamedTuple):
    """A login that has not ended. Each field is a column.

    All but the id and `expires_at` are None if an earlier release has started it, and it was not refreshed since.
    """

    id: UUID
    created_at: datetime | None
    last_used_at: datetime | None
    expires_at: datetime
    address: str | None
    user_agent: str | None


def list_live(executor: Executor, user_id: int) -> list[LiveLogin]:
    """The user's live logins, the last used first: at most MAX_LISTED."""
    return [LiveLogin(*row) for row in executor.execute(_LIST, {"user_id": user_id})]


def end_one(session: Session, user_id: int, family: UUID) -> None:
    """End a live login of this user.

    Raises:
        LoginNotFoundError: it does not exist, has ended, or is another user's.
    """
    if not _revoke(session, TokenFamily.id == family, TokenFamily.user_id == user_id, _is_live()):
        raise LoginNotFoundError


def end(session: Session, family: UUID) -> None:
    """End a login. All of its tokens become invalid."""
    _revoke(session, TokenFamily.id == family)


def end_all(session: Session, user_id: int, *, but: UUID | None = None) -> None:
    """End all logins of a user, except one."""
    _revoke(session, TokenFamily.user_id == user_id, *([] if but is None else [TokenFamily.id != but]))


class LoggedIn(NamedTuple):
    """The user of a live login."""

    id: int
    username: str
    is_admin: bool
    is_viewer: bool


def find_user(executor: Executor, family: UUID) -> LoggedIn | None:
    """The user of a live login."""
    row = executor.execute(_USER_OF_LIVE_LOGIN, {"family": family}).first()
    return None if row is None else LoggedIn(*row)


class EndedLogin(NamedTuple):
    """The end of a login, by a logout or a new password, or of an API key; or a change of who is an admin."""

    user_id: int
    at: datetime


def list_recently_ended(executor: Executor, within: timedelta) -> Sequence[EndedLogin]:
    """The logins and API keys that were ended within this time, and changes of who is an admin."""
    return [EndedLogin._make(row) for row in executor.execute(_RECENTLY_ENDED, {"within": within})]


def purge_expired(session: Session) -> None:
    """Delete logins that have expired."""
    session.execute(delete(TokenFamily).where(TokenFamily.expires_at < func.now()))


def _in_days(days: int) -> ColumnElement[datetime]:
    return func.now() + func.make_interval(0, 0, 0, days)


def _is_live() -> ColumnElement[bool]:
    return TokenFamily.revoked_at.is_(None) & (TokenFamily.expires_at > func.now())


_USER_OF_LIVE_LOGIN = (
    select(User.id, User.username, User.is_admin, User.is_viewer)
    .join(TokenFamily, TokenFamily.user_id == User.id)
    .where(TokenFamily.id == bindparam("family"), _is_live(), User.deleted_at.is_(None))
)


_ENDS = (
    (TokenFamily.user_id, TokenFamily.revoked_at),
    (ApiKey.user_id, ApiKey.revoked_at),
    (User.id, User.admin_changed_at),
)
_RECENTLY_ENDED = union(
    *(select(user_id, time).where(time > func.now() - bindparam("within", type_=Interval)) for user_id, time in _ENDS)
)


_last_used = func.coalesce(TokenFamily.last_used_at, TokenFamily.created_at)
_LIST = (
    select(*(getattr(TokenFamily, name) for name in LiveLogin._fields))
    .where(TokenFamily.user_id == bindparam("user_id"), _is_live())
    .order_by(_last_used.desc().nulls_last(), TokenFamily.id)
    .limit(MAX_LISTED)
)


def _used(refresh_id: UUID, days: int, device: Device) -> dict[str, Any]:
    """The columns that each login and refresh sets."""
    return {"current": refresh_id, "expires_at": _in_days(days), "last_used_at": func.now(), **device._asdict()}


def _revoke(session: Session, *conditions: ColumnElement[bool]) -> int:
    """End the logins for which these conditions hold. Returns how many."""
    ended = update(TokenFamily).where(*conditions, TokenFamily.revoked_at.is_(None)).values(revoked_at=func.now())
    return session.execute(ended).rowcount  # type: ignore[attr-defined, no-any-return]
