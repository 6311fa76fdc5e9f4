"""What admins see of all accounts: users and API keys, with what they used in this month (UTC).

Each list is one statement. It reads a page by primary key, and for each row a few entries of an index.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import text

from shared.accounts.usage import SUMS, UsageTotal
from shared.db.engine import Executor
from shared.db.models import NO_PASSWORD
from shared.errors import UserNotFoundError


class UserOverview(NamedTuple):
    """A user as an admin sees them."""

    id: int
    username: str
    is_admin: bool
    is_viewer: bool
    created_at: datetime
    logins: int  #: that are live
    keys: int  #: that are live
    unfinished: int  #: prompts
    has_password: bool
    has_identity: bool  #: at an identity provider
    used: UsageTotal  #: in this month


class KeyOverview(NamedTuple):
    """An API key as an admin sees it."""

    id: int
    user_id: int
    username: str
    name: str
    prefix: str
    scopes: list[str]
    models: list[str] | None
    rate_limit: str | None
    monthly_tokens: int | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    used: UsageTotal  #: in this month


# In UTC also where a pooler ignores the time zone of the sessions.
_THIS_MONTH = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"
_USERS = f"""
    SELECT id, username, is_admin, is_viewer, created_at,
        (SELECT count(*) FROM token_families WHERE user_id = users.id AND revoked_at IS NULL AND expires_at > now()),
        (
            SELECT count(*) FROM api_keys
            WHERE user_id = users.id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
        ),
        (SELECT count(*) FROM prompts WHERE user_id = users.id AND status IN ('queued', 'processing')),
        password_hash <> '{NO_PASSWORD}',
        EXISTS (SELECT FROM identities WHERE user_id = users.id),
        month.*
    FROM users
    CROSS JOIN LATERAL (SELECT {SUMS} FROM usage WHERE user_id = users.id AND day >= {_THIS_MONTH}) AS month
    WHERE deleted_at IS NULL AND """  # noqa: S608  # nosec B608
_PAGE_OF_USERS = text(f"{_USERS} id < :before ORDER BY id DESC LIMIT :limit")
_ONE_USER = text(f"{_USERS} id = :user_id")
_KEYS = f"""
    SELECT api_keys.id, user_id, username, name, prefix, scopes, models, rate_limit, monthly_tokens,
        api_keys.created_at, expires_at, last_used_at, revoked_at, month.*
    FROM api_keys JOIN users ON users.id = user_id
    CROSS JOIN LATERAL (
        SELECT {SUMS} FROM usage
        WHERE usage.user_id = api_keys.user_id AND day >= {_THIS_MONTH} AND key_id = api_keys.id
    ) AS month
    WHERE deleted_at IS NULL AND api_keys.id < :before"""  # noqa: S608  # nosec B608
_END_OF_KEYS = "ORDER BY api_keys.id DESC LIMIT :limit"
_PAGE_OF_KEYS = text(f"{_KEYS} {_END_OF_KEYS}")
_PAGE_OF_USERS_KEYS = text(f"{_KEYS} AND user_id = :user_id {_END_OF_KEYS}")


def list_users(executor: Executor, *, limit: int, before: int) -> list[UserOverview]:
    """Users with ids below `before`, the newest first."""
    return [UserOverview(*_fields(row)) for row in executor.execute(_PAGE_OF_USERS, {"limit": limit, "before": before})]


def get_user(executor: Executor, user_id: int) -> UserOverview:
    """A user.

    Raises:
        UserNotFoundError: there is none with this id.
    """
    row = executor.execute(_ONE_USER, {"user_id": user_id}).first()
    if row is None:
        raise UserNotFoundError
    return UserOverview(*_fields(row))


def list_keys(executor: Executor, *, limit: int, before: int, user_id: int | None = None) -> list[KeyOverview]:
    """API keys with ids below `before`, the newest first, also revoked ones; of all users or of one."""
    statement = _PAGE_OF_KEYS if user_id is None else _PAGE_OF_USERS_KEYS
    rows = executor.execute(statement, {"limit": limit, "before": before, "user_id": user_id})
    return [KeyOverview(*_fields(row)) for row in rows]


def _fields(row: Sequence[Any]) -> list[Any]:
    """The columns of a row, with the last ones as a UsageTotal."""
    return [*row[: -len(UsageTotal._fields)], UsageTotal(*row[-len(UsageTotal._fields) :])]
