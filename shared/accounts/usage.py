"""The ledger: what the attempts of each user used, by day (UTC), API key and model route.

The transaction that ends an attempt adds to it. `prompts` has the same numbers for each prompt, so for all
prompts that were not deleted

    sum(prompts.used_prompt_tokens) = sum(usage.prompt_tokens), and so for the tokens of answers

Embeddings of OpenAI's API are in it, too, by the embedder's name as the route (`embedding_usage.py`).
Lock order: rows of the ledger come last, in the order of their keys.
"""

from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text

from shared.db.engine import Executor

#: The most rows of a report.
MAX_ROWS = 1_000


class UsageBy(StrEnum):
    """What the rows of a report are about."""

    DAY = "day"
    MODEL = "model"
    KEY = "key"
    USER = "user"


class UsageTotal(NamedTuple):
    """What was used."""

    prompts: int  #: how many finished; one that was retried counts each time
    prompt_tokens: int
    completion_tokens: int
    cost: Decimal


class UsageRow(NamedTuple):
    """What was used on a day, of a model route, with an API key, or by a user."""

    #: The day; the route's name; id, name and prefix of the key, with 0 for logins; id and name of the user.
    group: tuple[Any, ...]
    used: UsageTotal


class Report(NamedTuple):
    """What was used, in all and by group."""

    total: UsageTotal
    rows: list[UsageRow]  #: at most MAX_ROWS


#: The columns of each group, and where they come from.
_GROUPS = {
    UsageBy.DAY: ("day", "usage"),
    UsageBy.MODEL: ("route", "usage"),
    UsageBy.KEY: ("key_id, name, prefix", "usage LEFT JOIN api_keys ON api_keys.id = key_id"),
    UsageBy.USER: ("usage.user_id, username", "usage JOIN users ON users.id = usage.user_id AND deleted_at IS NULL"),
}
#: SQL of the fields of a UsageTotal.
SUMS = ", ".join(
    f"coalesce(sum(usage.{name}), 0)::{kind}"
    for name, kind in zip(UsageTotal._fields, ("bigint", "bigint", "bigint", "numeric"), strict=True)
)


def _report(by: UsageBy) -> TextClause:
    columns, source = _GROUPS[by]
    first = columns.partition(",")[0]
    order = first if by == UsageBy.DAY else f"sum(usage.prompt_tokens + usage.completion_tokens) DESC, {first}"
    # The empty group is the total. It comes first, so that the limit does not cut it off.
    return text(f"""
        SELECT {SUMS}, {columns}
        FROM {source}
        WHERE day BETWEEN :since AND :until
            AND (CAST(:user_id AS bigint) IS NULL OR usage.user_id = CAST(:user_id AS bigint))
        GROUP BY GROUPING SETS ((), ({columns}))
        ORDER BY GROUPING({first}) DESC, {order}
        LIMIT :limit
    """)  # noqa: S608  # nosec B608


_REPORTS = {by: _report(by) for by in UsageBy}


def report(executor: Executor, by: UsageBy, since: date, until: date, *, user_id: int | None = None) -> Report:
    """What attempts used that ended on these days, both included: days in order, other groups by their tokens.

    Without `user_id` it is that of all users. Groups beyond MAX_ROWS count in the total only.
    """
    parameters = {"since": since, "until": until, "user_id": user_id, "limit": 1 + MAX_ROWS}
    size = len(UsageTotal._fields)
    rows = [UsageRow(tuple(row[size:]), UsageTotal(*row[:size])) for row in executor.execute(_REPORTS[by], parameters)]
    return Report(rows[0].used, rows[1:])


def add_to_ledger(source: str, *, at: str, prompts: int) -> str:
    """The SQL that adds the rows of `source` to the ledger, which have user_id, key_id, route and the fields of `Used`.

    `at` is the time when they ended, and each counts as `prompts` finished prompts. What is NULL adds nothing.
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
