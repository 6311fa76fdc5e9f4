"""Users and their passwords. `shared/accounts/names.py` normalises both."""

from collections.abc import Sequence
from uuid import UUID

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from shared.accounts import logins, names
from shared.db.models import Scope, User
from shared.errors import InsufficientScopeError, UsernameTakenError, UserNotFoundError

# argon2id with OWASP's parameters (Password Storage Cheat Sheet: m=19 MiB, t=2, p=1).
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)

#: A hash to verify when the user does not exist, so that the answer takes as long.
NO_USER_HASH = "$argon2id$v=19$m=19456,t=2,p=1$DdzFrPvPmtR6E+LDTH4ZjQ$ZJ60+gBqZw3lRgiQVjjawejuXmZwbv3AM85Rtuaz2Pk"


def hash_password(password: str) -> str:
    """Return the argon2id hash of a normalised password. It takes about 20 ms of CPU: keep it off an event loop."""
    return _hasher.hash(password)


def verify_password(password_hash: str, password: str) -> bool:
    """Whether the password matches, in its normal form or as it was typed. As expensive as hashing, for each form."""
    return matching_form(password_hash, password) is not None


def matching_form(password_hash: str, password: str) -> str | None:
    """The form of the password that matches; None if none does. It verifies all forms, so it always takes as long."""
    matching = [form for form in names.password_forms(password) if _verify(password_hash, form)]
    return matching[0] if matching else None


def _verify(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False


def create(
    session: Session, username: str, password_hash: str, *, is_admin: bool = False, is_viewer: bool = False
) -> User:
    """Add a user, of a normalised name.

    Raises:
        UsernameTakenError: another user has this name, in any case.
    """
    values = {"username": username, "password_hash": password_hash, "is_admin": is_admin, "is_viewer": is_viewer}
    user = session.execute(upsert(User).values(**values).on_conflict_do_nothing().returning(User)).scalar_one_or_none()
    if user is None:
        raise UsernameTakenError(f"The username {username!r} is taken.")
    return user


def find(session: Session, username: str) -> User | None:
    """The user of this name, in any case and way to write it. Among users who share it, only the exact name counts."""
    return session.scalar(select(User).where(User.id == id_of(username)))


def id_of(username: str) -> ColumnElement[int]:
    """The id of the user that `find` finds, as a part of a statement."""
    exact = User.username == username
    folded = func.lower(User.username.collate("C")) == names.fold(username)  # as the index `users_by_folded_name`
    named = select(User.id).where(exact | (folded & ~User.shares_name), User.deleted_at.is_(None))
    return named.order_by(exact.desc()).limit(1).scalar_subquery()


def list_all(session: Session) -> Sequence[User]:
    """All users, by username."""
    return session.scalars(select(User).where(User.deleted_at.is_(None)).order_by(User.username)).all()


def set_password(session: Session, username: str, password_hash: str) -> int:
    """Change a user's password and end all of their logins. Returns the user's id.

    Raises:
        UserNotFoundError: no user has this name.
    """
    user = find_existing(session, username)
    user.password_hash = password_hash
    logins.end_all(session, user.id)
    return user.id


def find_existing(session: Session, username: str) -> User:
    """As `find`.

    Raises:
        UserNotFoundError: no user has this name.
    """
    user = find(session, username)
    if user is None:
        raise UserNotFoundError(f"There is no user {username!r}.")
    return user


def lock(session: Session, user_id: int) -> User:
    """The user of this id, locked until the commit.

    Raises:
        UserNotFoundError: there is none.
    """
    one = select(User).where(User.id == user_id, User.deleted_at.is_(None)).with_for_update(key_share=True)
    user = session.scalar(one)
    if user is None:
        raise UserNotFoundError
    return user


def lock_for_admin(session: Session, user_id: int, admin_id: int) -> User:
    """As `lock`, on behalf of another user who must be an admin still: of two admins who remove each other, one stays.

    Raises:
        UserNotFoundError: there is no user of this id.
        InsufficientScopeError: the other is no admin any more.
    """
    both = select(User).where(User.id.in_((user_id, admin_id)), User.deleted_at.is_(None))
    locked = {user.id: user for user in session.scalars(both.order_by(User.id).with_for_update(key_share=True))}
    if admin_id not in locked or not locked[admin_id].is_admin:
        raise InsufficientScopeError(Scope.ADMIN)
    if user_id not in locked:
        raise UserNotFoundError
    return locked[user_id]


def set_roles(user: User, *, is_admin: bool | None = None, is_viewer: bool | None = None) -> list[str]:
    """Make the user an admin or a viewer, or no longer one; None leaves it. Returns what to record in the audit trail.

    After the commit, announce that a login has ended: all processes then forget what the user was.
    """
    acts = []
    if is_admin is not None and user.is_admin != is_admin:
        user.is_admin = is_admin
        acts.append("admin.granted" if is_admin else "admin.removed")
    if is_viewer is not None and user.is_viewer != is_viewer:
        user.is_viewer = is_viewer
        acts.append("viewer.granted" if is_viewer else "viewer.removed")
    if acts:
        user.admin_changed_at = func.now()
    return acts


def change_password(session: Session, user: User, password_hash: str, *, keep: UUID | None) -> bool:
    """Change a password, and end the user's other logins. `keep` is the login that stays.

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


def replace_hash(session: Session, user: User, password_hash: str) -> None:
    """Store another hash of the same password, unless the password was changed meanwhile."""
    unchanged = (User.id == user.id, User.password_hash == user.password_hash)
    session.execute(update(User).where(*unchanged).values(password_hash=password_hash))
