"""API keys, by which programs call the service for their users. Of a key itself only the SHA-256 is stored."""

import hashlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ARRAY, BigInteger, bindparam, func, insert, select, update
from sqlalchemy.orm import Session

from shared.db.engine import Executor
from shared.db.models import ApiKey, User
from shared.errors import KeyLimitError, KeyNotFoundError

#: How many keys a user may have that are not revoked.
MAX_KEYS = 100
#: How many of a key's characters people see, to recognise it.
PREFIX_LENGTH = 11


class NewKey(NamedTuple):
    """What a new key may do. Each field is a column."""

    name: str
    scopes: list[str]
    models: list[str] | None = None
    expires_at: datetime | None = None
    rate_limit: str | None = None
    monthly_tokens: int | None = None


class LiveKey(NamedTuple):
    """A live key and its user."""

    id: int
    scopes: list[str]
    models: list[str] | None
    expires_at: datetime | None
    rate_limit: str | None
    monthly_tokens: int | None
    user_id: int
    username: str
    is_admin: bool
    is_viewer: bool


def find(executor: Executor, key: str) -> LiveKey | None:
    """The key, if it is live. A wrong, a revoked and an expired key take one statement, as a live one does."""
    row = executor.execute(_LIVE_KEY, {"key_hash": _hash(key)}).first()
    return None if row is None else LiveKey._make(row)


def is_live(executor: Executor, key_id: int) -> bool:
    """Whether the key is neither revoked nor expired, and its user exists."""
    return executor.execute(_IS_LIVE, {"key_id": key_id}).first() is not None


def create(session: Session, user_id: int, new: NewKey, key: str) -> ApiKey:
    """Add a key.

    Raises:
        KeyLimitError: the user has MAX_KEYS that are not revoked.
    """
    # The lock makes the count exact. It does not keep the user's prompts from being stored.
    session.execute(select(User.id).where(User.id == user_id).with_for_update(key_share=True))
    of_user = ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None)
    if session.execute(select(func.count()).select_from(ApiKey).where(*of_user)).scalar_one() >= MAX_KEYS:
        raise KeyLimitError(f"You have {MAX_KEYS} API keys, the most that a user may have. Revoke one first.")
    values = {"user_id": user_id, "key_hash": _hash(key), "prefix": key[:PREFIX_LENGTH], **new._asdict()}
    return session.execute(insert(ApiKey).values(values).returning(ApiKey)).scalar_one()


def list_all(session: Session, user_id: int) -> Sequence[ApiKey]:
    """The user's keys that are not revoked, newest first."""
    of_user = ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None)
    return session.scalars(select(ApiKey).where(*of_user).order_by(ApiKey.id.desc())).all()


def revoke(session: Session, key_id: int, *, user_id: int | None = None) -> int:
    """Revoke a key for good: one of this user, or, without `user_id`, of any. Returns the id of its user.

    Raises:
        KeyNotFoundError: it does not exist, is another user's, or was revoked before.
    """
    one = [ApiKey.id == key_id, *([] if user_id is None else [ApiKey.user_id == user_id]), ApiKey.revoked_at.is_(None)]
    owner: int | None = session.scalar(
        update(ApiKey).where(*one).values(revoked_at=func.now()).returning(ApiKey.user_id)
    )
    if owner is None:
        raise KeyNotFoundError
    return owner


def touch(executor: Executor, key_ids: Collection[int]) -> None:
    """Set the last use of these keys to now, unless it was set within the last minute."""
    executor.execute(_TOUCH, {"key_ids": sorted(key_ids)})


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


_is_live = (
    ApiKey.revoked_at.is_(None)
    & (ApiKey.expires_at.is_(None) | (ApiKey.expires_at > func.now()))
    & User.deleted_at.is_(None)
)
_LIVE_KEY = (
    select(
        ApiKey.id,
        ApiKey.scopes,
        ApiKey.models,
        ApiKey.expires_at,
        ApiKey.rate_limit,
        ApiKey.monthly_tokens,
        ApiKey.user_id,
        User.username,
        User.is_admin,
        User.is_viewer,
    )
    .join(User, User.id == ApiKey.user_id)
    .where(ApiKey.key_hash == bindparam("key_hash"), _is_live)
)
_IS_LIVE = select(ApiKey.id).join(User, User.id == ApiKey.user_id).where(ApiKey.id == bindparam("key_id"), _is_live)
# Rows that another process is updating are skipped, because that one does the same.
_DUE = (
    select(ApiKey.id)
    .where(
        ApiKey.id == func.any(bindparam("key_ids", type_=ARRAY(BigInteger))),
        ApiKey.last_used_at.is_(None) | (ApiKey.last_used_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 1)),
    )
    .with_for_update(skip_locked=True)
)
_TOUCH = update(ApiKey).where(ApiKey.id.in_(_DUE)).values(last_used_at=func.now())
