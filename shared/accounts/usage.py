"""The ledger: what the attempts of each user used, by day (UTC), API key and model route.

Whatever ends an attempt adds to it, in the same transaction. `prompts` has the same numbers for each prompt, so for all
prompts that were not deleted

    sum(prompts.used_prompt_tokens) = sum(usage.prompt_tokens), and so for the tokens of answers

Lock order: rows of the ledger come last, in the order of their keys.
"""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text

from shared.db.engine import Executor


class UsageBy(StrEnum):
    """What the rows of a report are about."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"
    USER = "user"


class UsageRow(NamedTuple):
    """What was used on a day, of a model route, with an API key, or by a user."""

    #: The day; the route's name; id, name and prefix of the key, with 0 for logins; id and name of the user.
    group: tuple[Any, ...]
    prompts: int  #: how many finished; one that was retried counts each time
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal


#: The columns of each group, and where they come from.
_GROUPS = {
    UsageBy.DAY: ("day", "usage"),
    UsageBy.MODEL: ("route", "usage"),
    UsageBy.KEY: ("key_id, name, prefix", "usage LEFT JOIN api_keys ON api_keys.id = key_id"),
    UsageBy.USER: ("usage.user_id, username", "usage JOIN users ON users.id = usage.user_id"),
}


def _report(columns: str, source: str) -> TextClause:
    sums = ", ".join(f"CAST(sum({name}) AS bigint)" for name in ("prompts", "prompt_tokens", "completion_tokens"))
    return text(f"""
        SELECT {sums}, sum(cost), {columns}
        FROM {source}
        WHERE day BETWEEN :since AND :until
            AND (CAST(:user_id AS bigint) IS NULL OR usage.user_id = CAST(:user_id AS bigint))
        GROUP BY {columns}
        ORDER BY {columns}
    """)  # noqa: S608  # nosec B608


_REPORTS = {by: _report(*group) for by, group in _GROUPS.items()}


def report(executor: Executor, by: UsageBy, since: date, until: date, *, user_id: int | None = None) -> list[UsageRow]:
    """What attempts used that ended on these days, both included, in the order of the groups.

    Without `user_id` it is that of all users.
    """
    parameters = {"since": since, "until": until, "user_id": user_id}
    return [UsageRow(tuple(row[4:]), *row[:4]) for row in executor.execute(_REPORTS[by], parameters)]


def total(rows: Sequence[UsageRow]) -> UsageRow:
    """The sum of the rows."""
    sums = [sum(values) for values in list(zip(*rows, strict=True))[1:]] or [0, 0, 0, Decimal(0)]
    return UsageRow((), *sums)


def add_to_ledger(source: str, *, at: str, prompts: int) -> str:
    """The SQL that adds the rows of `source` to the ledger, which have user_id, key_id, route and the fields of `Used`.

    `at` is the time when they ended, and each counts as so many `prompts`. What is NULL adds nothing.
    """
    return f"""
        INSERT INTO usage (user_id, day, key_id, route, prompts, prompt_tokens, completion_tokens, cost)
        SELECT user_id, CAST({at} AT TIME ZONE 'UTC' AS date) AS day, key_id, route, {prompts} * count(*),
            coalesce(sum(used_prompt_tokens), 0), coalesce(sum(used_completion_tokens), 0), coalesce(sum(cost), 0)
        FROM {source}
        GROUP BY user_id, day, key_id, route
        ORDER BY user_id, day, key_id, route
        ON CONFLICT (user_id, day, key_id, route) DO UPDATE SET
            prompts = usage.prompts + excluded.prompts,
            prompt_tokens = usage.prompt_tokens + excluded.prompt_tokens,
            completion_tokens = usage.completion_tokens + excluded.completion_tokens,
            cost = usage.cost + excluded.cost
    """  # noqa: S608  # nosec B608
