"""The usage as text: a table, and a line for each budget."""

from collections.abc import Sequence

from .output import local_time, one_line, table
from .resources import Budget, UsageReport, UsageRow, UsageTotal

_HEADER = ("PROMPTS", "TOKENS IN", "TOKENS OUT", "COST")


def usage_text(report: UsageReport) -> str:
    """Describe the usage in a table with a total, and the budgets below it."""
    heads = [report["by"].upper(), *(_group(row) for row in report["rows"]), "TOTAL"]
    numbers = _align_right([_HEADER, *map(_numbers, report["rows"]), _numbers(report["total"])])
    lines = table([(head, *cells) for head, cells in zip(heads, numbers, strict=True)], None)
    budgets = [_budget_line(budget) for budget in report["budgets"]]
    return "\n".join([*lines, *([""] if budgets else []), *budgets])


def _group(row: UsageRow) -> str:
    if "day" in row:
        return row["day"]
    if "model" in row:
        return one_line(row["model"])
    if "user" in row:
        return row["user"]["username"] or f"#{row['user']['id']}"
    key = row.get("key")
    return "(logins)" if key is None else one_line(f"{key['name']} ({key['prefix']}…)")


def _numbers(used: UsageTotal) -> Sequence[str]:
    counts = (used["prompts"], used["prompt_tokens"], used["completion_tokens"])
    return [*(f"{count:,}" for count in counts), f"{used['cost']:,.4f}"]


def _align_right(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]


def _budget_line(budget: Budget) -> str:
    owner = "Your budget" if budget["key"] is None else f"The budget of API key {budget['key']}"
    return (
        f"{owner}: {budget['used_tokens']:,} of {budget['monthly_tokens']:,} tokens used, "
        f"{budget['reserved_tokens']:,} reserved. It begins again at {local_time(budget['resets_at'])}."
    )
