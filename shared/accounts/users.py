"""Users, their passwords, and the logins (token families) that came of them."""

import re
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import ColumnElement, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import TokenFamily, User
from shared.errors import UsernameTakenError, UserNotFoundError

USERNAME_PATTERN = r"^[A-Za-z0-9_.-]{1,150}$"
MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 1024

# argon2id with OWASP's parameters (Password Storage Cheat Sheet: m=19 MiB, t=2, p=1).
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

#: What the password of a user who does not exist is compared with, so that it takes as long.
NO_USER_HASH = "$argon2id$v=19$m=19456,t=2,p=1$DdzFrPvPmtR6E+LDTH4ZjQ$ZJ60+gBqZw3lRgiQVjjawejuXmZwbv3AM85Rtuaz2Pk"


def hash_password(password: str) -> str:
    """The argon2id hash. About 20 ms of CPU, so not on an event loop."""
    return _hasher.hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Whether it is the password. As expensive as hashing."""
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def create(session: Session, username: str, password_hash: str) -> User:
    """Adds a user.

    Raises:
        UsernameTakenError: somebody has that name.
    """
    user = session.execute(
        upsert(User).values(username=username, password_hash=password_hash).on_conflict_do_nothing().returning(User)
    ).scalar_one_or_none()
    if user is None:
        raise UsernameTakenError(f"The username {username!r} is taken.")
    return user


def validate(username: str, password: str) -> str | None:
    """Why these cannot be a user's, or None if they can."""
    if not re.match(USERNAME_PATTERN, username):
        return "A username has 1 to 150 of the characters A-Z a-z 0-9 _ . -"
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        return f"A password has {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters."
    return None


def find(session: Session, username: str) -> User | None:
    return session.scalar(select(User).where(User.username == username))


def everybody(session: Session) -> Sequence[User]:
    return session.scalars(select(User).order_by(User.username)).all()


def set_password(session: Session, username: str, password_hash: str) -> int:
    """Changes a password and ends every login of that user, whose id it returns.

    Raises:
        UserNotFoundError: there is no such user.
    """
    user_id: int | None = session.scalar(
        update(User).where(User.username == username).values(password_hash=password_hash).returning(User.id)
    )
    if user_id is None:
        raise UserNotFoundError(f"There is no user {username!r}.")
    _revoke(session, TokenFamily.user_id == user_id)
    return user_id


def still_has_password(session: Session, user: User) -> bool:
    """Whether the password is still the one that was read; it cannot be changed before the commit."""
    current = select(User.password_hash).where(User.id == user.id).with_for_update(read=True)
    return session.scalar(current) == user.password_hash


def start_family(session: Session, user_id: int, family: UUID, current: UUID, days: int) -> None:
    """Begins a login whose first refresh token is `current`."""
    expires_at = func.now() + func.make_interval(0, 0, 0, days)
    session.execute(insert(TokenFamily).values(id=family, user_id=user_id, current=current, expires_at=expires_at))


def rotate_family(session: Session, family: UUID, spent: UUID, following: UUID, days: int) -> bool:
    """Replaces the newest refresh token of a login. Returns whether `spent` was the newest of a live one."""
    expires_at = func.now() + func.make_interval(0, 0, 0, days)
    changed = session.execute(
        update(TokenFamily)
        .where(TokenFamily.id == family, TokenFamily.current == spent, _alive())
        .values(current=following, expires_at=expires_at)
        .returning(TokenFamily.id)
    )
    return changed.first() is not None


def revoke_family(session: Session, family: UUID) -> None:
    """Ends a login: none of its tokens is good any more."""
    _revoke(session, TokenFamily.id == family)


def find_by_family(reader: Executor, family: UUID) -> tuple[int, str] | None:
    """The id and the name of the user of a login that is still alive."""
    row = reader.execute(_OF_FAMILY, {"family": family}).first()
    return None if row is None else (row.id, row.username)


def list_with_ended_logins(executor: Executor, within: timedelta) -> Sequence[int]:
    """The users of whom a login was ended by somebody, not so long ago."""
    lately = TokenFamily.revoked_at > func.now() - within
    return executor.scalars(select(TokenFamily.user_id).where(lately).distinct()).all()


def purge_families(session: Session) -> None:
    """Forgets logins that have expired."""
    session.execute(delete(TokenFamily).where(TokenFamily.expires_at < func.now()))


def _alive() -> ColumnElement[bool]:
    return TokenFamily.revoked_at.is_(None) & (TokenFamily.expires_at > func.now())


_OF_FAMILY = (
    select(User.id, User.username)
    .join(TokenFamily, TokenFamily.user_id == User.id)
    .where(TokenFamily.id == bindparam("family"), _alive())
)


def _revoke(session: Session, which: ColumnElement[bool]) -> None:
    session.execute(update(TokenFamily).where(which, TokenFamily.revoked_at.is_(None)).values(revoked_at=func.now()))
