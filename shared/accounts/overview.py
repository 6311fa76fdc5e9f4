"""What admins see of all accounts: users and API keys, with what they used in this month (UTC).

Each list is one statement. It reads a page by primary key, and for each row a few entries of an index.
"""

from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

from sqlalchemy import text

from shared.db.engine import Executor
from shared.errors import UserNotFoundError

#: The most rows of a sum of usage.
MAX_USAGE_ROWS = 1_000

UsageBy = Literal["day", "model", "key", "user"]


class UsedTokens(NamedTuple):
    """What prompts used."""

    prompts: int
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal


class UserOverview(NamedTuple):
    """A user as an admin sees them."""

    id: int
    username: str
    is_admin: bool
    created_at: datetime
    logins: int  #: that are live
    keys: int  #: that are live
    unfinished: int  #: prompts
    used: UsedTokens  #: in this month


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
    used: UsedTokens  #: in this month


class UsageSum(NamedTuple):
    """What was used on a day, of a model route, by an API key, or by a user."""

    group: date | str | int | None  #: None for logins, if the sums are by API key
    name: str | None  #: of the key or the user; None if there is none any more
    used: UsedTokens


_SUMS = """
    coalesce(sum(usage.prompts), 0), coalesce(sum(usage.prompt_tokens), 0), coalesce(sum(usage.completion_tokens), 0),
    coalesce(sum(usage.cost), 0)
"""
# In UTC also where a pooler ignores the time zone of the sessions.
_THIS_MONTH = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"
_USERS = f"""
    SELECT id, username, is_admin, created_at,
        (SELECT count(*) FROM token_families WHERE user_id = users.id AND revoked_at IS NULL AND expires_at > now()),
        (
            SELECT count(*) FROM api_keys
            WHERE user_id = users.id AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
        ),
        (SELECT count(*) FROM prompts WHERE user_id = users.id AND status IN ('queued', 'processing')),
        month.*
    FROM users
    CROSS JOIN LATERAL (SELECT {_SUMS} FROM usage WHERE user_id = users.id AND day >= {_THIS_MONTH}) AS month
    WHERE deleted_at IS NULL AND """  # noqa: S608  # nosec B608
_PAGE_OF_USERS = text(f"{_USERS} id < :before ORDER BY id DESC LIMIT :limit")
_ONE_USER = text(f"{_USERS} id = :user_id")
_KEYS = f"""
    SELECT api_keys.id, user_id, username, name, prefix, scopes, models, rate_limit, monthly_tokens,
        api_keys.created_at, expires_at, last_used_at, revoked_at, month.*
    FROM api_keys JOIN users ON users.id = user_id
    CROSS JOIN LATERAL (
        SELECT {_SUMS} FROM usage
        WHERE usage.user_id = api_keys.user_id AND day >= {_THIS_MONTH} AND key_id = api_keys.id
    ) AS month
    WHERE deleted_at IS NULL AND api_keys.id < :before"""  # noqa: S608  # nosec B608
_END_OF_KEYS = "ORDER BY api_keys.id DESC LIMIT :limit"
_PAGE_OF_KEYS = text(f"{_KEYS} {_END_OF_KEYS}")
_PAGE_OF_USERS_KEYS = text(f"{_KEYS} AND user_id = :user_id {_END_OF_KEYS}")
_GROUPS = {
    "day": ("day", "NULL", ""),
    "model": ("route", "NULL", ""),
    "key": ("nullif(key_id, 0)", "max(api_keys.name)", "LEFT JOIN api_keys ON api_keys.id = key_id"),
    "user": ("usage.user_id", "max(username)", "JOIN users ON users.id = usage.user_id AND deleted_at IS NULL"),
}


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


def sum_usage(executor: Executor, by: UsageBy, *, since: date, until: date) -> list[UsageSum]:
    """What all users used from one day to another, both included, most tokens first; days in order of time.

    These are at most MAX_USAGE_ROWS.
    """
    group, name, joined = _GROUPS[by]
    order = "1" if by == "day" else "sum(usage.prompt_tokens + usage.completion_tokens) DESC, 1"
    statement = f"""
        SELECT {group}, {name}, {_SUMS} FROM usage {joined} WHERE day BETWEEN :since AND :until
        GROUP BY 1 ORDER BY {order} LIMIT {MAX_USAGE_ROWS}
    """  # noqa: S608  # nosec B608
    rows = executor.execute(text(statement), {"since": since, "until": until})
    return [UsageSum(*_fields(row)) for row in rows]


def _fields(row: Sequence[Any]) -> list[Any]:
    """The columns of a row, of which the last ones are what was used."""
    return [*row[: -len(UsedTokens._fields)], UsedTokens(*row[-len(UsedTokens._fields) :])]
