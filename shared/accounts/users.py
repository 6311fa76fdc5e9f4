"""Users and their passwords."""

import re
from collections.abc import Sequence
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.accounts import logins
from shared.db.models import User
from shared.errors import UsernameTakenError, UserNotFoundError

USERNAME_PATTERN = r"^[A-Za-z0-9_.-]{1,150}$"
MIN_PASSWORD_LENGTH = 8
MAX_PASSWORD_LENGTH = 1024

# argon2id with OWASP's parameters (Password Storage Cheat Sheet: m=19 MiB, t=2, p=1).
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

#: A hash to verify when the user does not exist, so that the answer takes as long.
NO_USER_HASH = "$argon2id$v=19$m=19456,t=2,p=1$DdzFrPvPmtR6E+LDTH4ZjQ$ZJ60+gBqZw3lRgiQVjjawejuXmZwbv3AM85Rtuaz2Pk"


def hash_password(password: str) -> str:
    """Return the argon2id hash. It takes about 20 ms of CPU: keep it off an event loop."""
    return _hasher.hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Whether the password matches. As expensive as hashing."""
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def check_username(username: str) -> None:
    """Raise ValueError, with a message for people, unless the username is allowed."""
    if not re.fullmatch(USERNAME_PATTERN, username):
        raise ValueError('Usernames use letters, digits, "_", "." and "-" (up to 150).')


def check_password(password: str) -> None:
    """Raise ValueError, with a message for people, unless the password is allowed."""
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise ValueError(f"Passwords have {MIN_PASSWORD_LENGTH} to {MAX_PASSWORD_LENGTH} characters.")


def create(session: Session, username: str, password_hash: str) -> User:
    """Add a user.

    Raises:
        UsernameTakenError: another user has this name.
    """
    user = session.execute(
        upsert(User).values(username=username, password_hash=password_hash).on_conflict_do_nothing().returning(User)
    ).scalar_one_or_none()
    if user is None:
        raise UsernameTakenError(f"The username {username!r} is taken.")
    return user


def find(session: Session, username: str) -> User | None:
    return session.scalar(select(User).where(User.username == username, User.deleted_at.is_(None)))


def list_all(session: Session) -> Sequence[User]:
    """All users, by username."""
    return session.scalars(select(User).where(User.deleted_at.is_(None)).order_by(User.username)).all()


def set_password(session: Session, username: str, password_hash: str) -> int:
    """Change a user's password and end all of their logins. Returns the user's id.

    Raises:
        UserNotFoundError: no user has this name.
    """
    user_id: int | None = session.scalar(
        update(User).where(User.username == username).values(password_hash=password_hash).returning(User.id)
    )
    if user_id is None:
        raise UserNotFoundError(f"There is no user {username!r}.")
    logins.end_all(session, user_id)
    return user_id


def change_password(session: Session, user: User, password_hash: str, *, keep: UUID | None) -> bool:
    """Change a password, and end the user's logins but for one.

    Returns False, and changes nothing, if the password is not the one that was read, or the account is deleted.
    """
    current = (User.id == user.id, User.password_hash == user.password_hash, User.deleted_at.is_(None))
    changed = session.scalar(update(User).where(*current).values(password_hash=password_hash).returning(User.id))
    if changed is None:
        return False
    logins.end_all(session, user.id, but=keep)
    return True


def lock_password(session: Session, user: User) -> bool:
    """Keep the password from being changed before the commit. Returns whether it is still the one that was read."""
    current = select(User.password_hash).where(User.id == user.id).with_for_update(read=True)
    return session.scalar(current) == user.password_hash
