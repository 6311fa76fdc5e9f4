"""`GET /usage/?since=&until=&by=day|model|key`: prompts, tokens in and out, cost."""

from datetime import UTC, date, datetime

import pytest
from flask import Flask

from shared.accounts import usage
from shared.accounts.usage import UsageBy
from shared.db.engine import Sessions
from shared.db.models import Usage
from tests.support.client import ApiUser, assert_problem
from tests.support.usage import add_key
from worker.pipeline import Pipeline


@pytest.fixture
def three_months(alice: ApiUser, bob: ApiUser, sessions: Sessions) -> int:
    """Usage of several days, keys and models. Returns the key's id."""
    key = add_key(sessions, alice.id, name="nightly")
    rows = [
        (alice, date(2026, 9, 30), 0, "default", 1),
        (alice, date(2026, 10, 1), 0, "default", 10),
        (alice, date(2026, 10, 1), key, "default", 100),
        (alice, date(2026, 10, 31), key, "large", 1_000),
        (alice, date(2026, 11, 1), 0, "large", 10_000),
        (bob, date(2026, 10, 1), 0, "default", 7),
    ]
    with sessions.begin() as session:
        for user, day, key_id, route, tokens in rows:
            session.add(
                Usage(
                    user_id=user.id, day=day, key_id=key_id, route=route, prompts=1, prompt_tokens=tokens, cost=tokens
                )
            )
    return key


OCTOBER = "since=2026-10-01&until=2026-10-31"


def sums(tokens: int, prompts: int = 1) -> dict[str, float]:
    return {
        "prompts": prompts,
        "prompt_tokens": tokens,
        "completion_tokens": 0,
        "total_tokens": tokens,
        "cost": float(tokens),
    }


@pytest.mark.parametrize("by", ["day", "model", "key"])
def test_usage_reports_prompts_tokens_in_and_out_and_cost_by_day_model_or_key(
    alice: ApiUser, three_months: int, by: str
) -> None:
    key = {"id": three_months, "name": "nightly", "prefix": "pw_12345678"}
    expected = {
        "day": [("2026-10-01", sums(110, 2)), ("2026-10-31", sums(1_000))],
        "model": [("large", sums(1_000)), ("default", sums(110, 2))],
        "key": [(key, sums(1_100, 2)), (None, sums(10))],
    }
    report = alice.get(f"/usage/?{OCTOBER}&by={by}").json
    assert report["rows"] == [{by: group} | used for group, used in expected[by]]
    assert report["total"] == sums(1_110, 3)
    assert (report["by"], report["since"], report["until"]) == (by, "2026-10-01", "2026-10-31")


@pytest.mark.parametrize(
    ("query", "tokens"),
    [
        (OCTOBER, 1_110),
        ("since=2026-10-01T23:59:59Z&until=2026-10-31T00:00:00Z", 1_110),
        ("since=2026-10-31T23:30:00-01:00&until=2026-11-01", 10_000),
        ("since=2026-10-01&until=2026-10-01", 110),
        ("until=2026-10-30", 110),
        ("since=2026-09-30", 11_111),
        ("since=2026-10-31&until=2026-10-01", 0),
    ],
)
def test_since_and_until_are_days_in_utc_and_both_count(
    alice: ApiUser, three_months: int, query: str, tokens: int
) -> None:
    assert three_months
    assert alice.get("/usage/", query_string=query.replace("+", "%2B")).json["total"]["total_tokens"] == tokens


def test_usage_is_that_of_this_month_by_default(alice: ApiUser, worker: Pipeline) -> None:
    alice.submit()
    worker.process(1)
    report, today = alice.get("/usage/").json, datetime.now(UTC).date()
    assert (report["since"], report["until"]) == (f"{today:%Y-%m}-01", f"{today}")
    assert [(row["day"], row["prompts"]) for row in report["rows"]] == [(f"{today}", 1)]
    assert report["budgets"] == []


@pytest.mark.parametrize(
    "query",
    ["since=yesterday", "until=2026-13-01", "since=1700000000", "by=user", "by=", "since=2026-10-01T25:00:00Z", "x=1"],
)
def test_an_invalid_day_or_group_is_400(alice: ApiUser, query: str) -> None:
    assert assert_problem(alice.get(f"/usage/?{query}"), 400)["errors"]


def test_usage_needs_a_login_or_a_key(app: Flask) -> None:
    assert_problem(app.test_client().get("/usage/"), 401)


def test_an_operator_can_add_up_the_usage_of_all_users(
    alice: ApiUser, bob: ApiUser, three_months: int, sessions: Sessions
) -> None:
    assert three_months
    with sessions() as session:
        rows = usage.report(session, UsageBy.USER, date(2026, 10, 1), date(2026, 10, 31)).rows
    assert [(row.group, row.used.prompt_tokens) for row in rows] == [((alice.id, "alice"), 1_110), ((bob.id, "bob"), 7)]


@pytest.mark.parametrize(("by", "first"), [(UsageBy.DAY, (date(2026, 10, 1),)), (UsageBy.MODEL, ("large",))])
def test_a_report_with_too_many_rows_has_the_first_days_or_the_most_tokens_and_the_total_of_all(
    three_months: int, sessions: Sessions, by: UsageBy, first: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert three_months
    monkeypatch.setattr(usage, "MAX_ROWS", 1)
    with sessions() as session:
        report = usage.report(session, by, date(2026, 10, 1), date(2026, 10, 31))
    assert [row.group for row in report.rows] == [first]
    assert report.total.prompt_tokens == 1_117


def test_usage_shows_nothing_of_other_users(bob: ApiUser, three_months: int) -> None:
    assert three_months
    for by in ("day", "model", "key"):
        assert bob.get(f"/usage/?by={by}&since=2026-01-01").json["total"] == sums(7)
