"""Usage and budgets in requests and responses: pydantic models, and functions that render what the database has."""

from datetime import UTC, date, datetime
from typing import Any, Literal

from pydantic import Field

from api.http.fields import Date, Day, Id, Moment
from api.http.openapi.models import Answer, Query, example
from shared import timestamps
from shared.accounts import usage
from shared.accounts.budgets import Budget
from shared.accounts.usage import UsageBy


class _Period(Query):
    since: Day | None = Field(
        None, description="The first day (UTC), as a date or a time in it.", json_schema_extra=example("2026-11-01")
    )
    until: Day | None = Field(
        None, description="The last day (UTC), as a date or a time in it.", json_schema_extra=example("2026-11-30")
    )

    def days(self) -> tuple[date, date]:
        """The first and the last day: of this month by default, and else up to today."""
        today = datetime.now(UTC).date()
        until = self.until or max(today, self.since or today)
        return self.since or until.replace(day=1), until


class UsageQuery(_Period):
    by: Literal["day", "model", "key"] = Field("day", description="What the rows are about.")


class AdminUsageQuery(_Period):
    by: Literal["day", "model", "key", "user"] = Field("day", description="What the rows are about.")


class UserName(Answer):
    """A user by id and name."""

    id: Id
    username: str | None = Field(description="Null if the account is deleted.")


class UsageKey(Answer):
    """The API key of a row of the usage."""

    id: Id
    name: str
    prefix: str = Field(description="The key's first characters.")


class UsageTotal(Answer):
    """What was used. Failed and cancelled attempts count, too."""

    prompts: int = Field(
        description="How many prompts finished: completed, failed or cancelled. A retried one counts again."
    )
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float = Field(description="At the prices of the time, in the currency of `INPUT_PRICE` and `OUTPUT_PRICE`.")


class UsageRow(UsageTotal):
    """What was used: on a day, of a model, with an API key, or, for admins, by a user."""

    day: Date | None = Field(None, description="By day: the day (UTC).")
    model: str | None = Field(None, description="By model: the route's name.")
    key: UsageKey | None = Field(None, description="By key: the API key; null for logins.")
    user: UserName | None = Field(None, description="By user: the user.")


class UsageReport(Answer):
    """What was used."""

    by: UsageBy
    since: Date = Field(description="The first day.")
    until: Date = Field(description="The last day.")
    rows: list[UsageRow] = Field(
        description=f"Only those with any usage, and at most {usage.MAX_ROWS:,}: days in order, others by their tokens."
    )
    total: UsageTotal


class BudgetState(Answer):
    """A budget of tokens in a calendar month (UTC)."""

    key: Id | None = Field(description="The API key's `id`; null for the budget of all of the user's prompts.")
    monthly_tokens: int
    used_tokens: int = Field(description="What this month's attempts used.")
    reserved_tokens: int = Field(description="What unfinished prompts reserve.")
    resets_at: Moment = Field(description="When the next month begins.")


class UsageAndBudgets(UsageReport):
    """What the caller's prompts used, and the caller's budgets."""

    budgets: list[BudgetState]


def usage_report(by: UsageBy, since: date, until: date, report: usage.Report) -> dict[str, Any]:
    """Render what was used as a UsageReport."""
    return {
        "by": by,
        "since": since.isoformat(),
        "until": until.isoformat(),
        "rows": [{by: _group(by, row.group), **usage_total(row.used)} for row in report.rows],
        "total": usage_total(report.total),
    }


def usage_total(used: usage.UsageTotal) -> dict[str, Any]:
    """Render a sum as a UsageTotal."""
    return used._asdict() | {"total_tokens": used.prompt_tokens + used.completion_tokens, "cost": float(used.cost)}


def budget_state(budget: Budget) -> dict[str, Any]:
    """Render a budget as a BudgetState."""
    return {
        "key": budget.key_id,
        "monthly_tokens": budget.monthly_tokens,
        "used_tokens": budget.used_tokens,
        "reserved_tokens": budget.reserved_tokens,
        "resets_at": timestamps.rfc3339(budget.resets_at),
    }


def _group(by: UsageBy, group: tuple[Any, ...]) -> Any:
    first = group[0]
    match by:
        case UsageBy.DAY:
            return first.isoformat()
        case UsageBy.MODEL:
            return first
        case UsageBy.USER:
            return dict(zip(("id", "username"), group, strict=True))
        case UsageBy.KEY:
            return dict(zip(("id", "name", "prefix"), group, strict=True)) if first else None
