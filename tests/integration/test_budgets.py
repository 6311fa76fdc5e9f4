"""Budgets: reserved at submission, settled at the end, released when not used, and exact under concurrency."""

import dataclasses
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import event, select, text, update

from api.auth.principal import KeyGrant
from api.intake.submission_limits import Caller
from api.intake.submissions import Stored, _Submission
from api.services import Services
from shared.accounts import budgets
from shared.accounts.budgets import Budget, Estimator
from shared.db.engine import Sessions
from shared.db.models import AbandonedAttempt, ApiKey, Prompt, Usage
from shared.errors import BudgetExceededError, ProviderError
from shared.prompts import claims, overdue
from shared.prompts.submission import NewPrompt
from shared.providers.simulated import SimulatedGenerator
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import ApiUser, assert_problem
from tests.support.providers import Script
from tests.support.servers import MAX_WAIT_SECONDS
from tests.support.usage import add_key, ledger, of_prompts
from worker.maintenance.cleaner import Cleaner
from worker.pipeline import Pipeline

PROMPT = "What is a tide?"
#: What the simulated generator uses for it.
TOKENS = sum(SimulatedGenerator.usage(PROMPT, SimulatedGenerator.answer(PROMPT)))
UNLIMITED = "1000000/second"

MakeApp = Callable[..., tuple[Flask, Services]]


@pytest.fixture
def budgeted(make_app: MakeApp) -> tuple[ApiUser, Services]:
    """A user with a budget of three prompts."""
    app, services = make_app(user_monthly_tokens=3 * TOKENS, prompt_rate_limit=UNLIMITED)
    return ApiUser(app, "alice"), services


def submit(user: ApiUser, **options: object):
    return user.post("/prompts/", json={"prompt_text": PROMPT}, **options)


def statuses(user: ApiUser, count: int) -> list[int]:
    return [submit(user).status_code for _ in range(count)]


def budget(user: ApiUser) -> tuple[int, int]:
    """What the user's budget has used and reserved, in prompts."""
    (state,) = user.get("/usage/").json["budgets"]
    assert state["used_tokens"] % TOKENS == state["reserved_tokens"] % TOKENS == 0
    return state["used_tokens"] // TOKENS, state["reserved_tokens"] // TOKENS


def test_over_budget_is_429_budget_exceeded_with_the_time_at_which_it_begins_again(
    budgeted: tuple[ApiUser, Services],
) -> None:
    alice, _ = budgeted
    assert statuses(alice, 3) == [202] * 3
    response = submit(alice)
    problem = assert_problem(response, 429)
    assert problem["type"].endswith("/budget-exceeded")
    resets_at = datetime.fromisoformat(problem["resets_at"])
    now = datetime.now(UTC)
    assert (resets_at.day, resets_at.time().isoformat()) == (1, "00:00:00")
    assert timedelta(0) < resets_at - now <= timedelta(days=31)
    assert abs(int(response.headers["Retry-After"]) - (resets_at - now).total_seconds()) < 60
    assert f"Your budget is {3 * TOKENS} tokens a month. 0 are used and {3 * TOKENS} are reserved" in problem["detail"]
    assert f"needs {TOKENS}. It begins again on {resets_at:%Y-%m-%d} (UTC). (USER_MONTHLY_TOKENS)" in problem["detail"]
    assert len(alice.get("/prompts/").json) == 3


def test_budgets_are_reserved_at_submission_and_settled_at_the_end(
    budgeted: tuple[ApiUser, Services], worker: Pipeline
) -> None:
    alice, _ = budgeted
    assert statuses(alice, 2) == [202] * 2
    assert budget(alice) == (0, 2)
    during: list[tuple[int, int]] = []
    answer = SimulatedGenerator.answer(PROMPT)
    script = Script(answer.rstrip("."), between_chunks=lambda: during.append(budget(alice)))
    dataclasses.replace(worker, generator=script).process(1)
    assert set(during) == {(0, 2)}
    assert budget(alice) == (1, 1)
    worker.process(1)
    assert budget(alice) == (2, 0)
    assert statuses(alice, 2) == [202, 429]


def test_the_list_of_api_keys_shows_what_each_budget_has_used_and_reserved(make_app: MakeApp, worker: Pipeline) -> None:
    app, services = make_app(prompt_rate_limit=UNLIMITED)
    alice = ApiUser(app, "alice")
    unlimited, limited = alice.create_key(), alice.create_key(monthly_tokens=3 * TOKENS)
    caller = alice.with_key(limited["key"])
    assert statuses(caller, 4) == [202, 202, 202, 429]
    worker.process(1)
    listed = {key["id"]: (key["used_tokens"], key["reserved_tokens"]) for key in alice.get("/auth/keys/").json}
    assert listed == {unlimited["id"]: (None, None), limited["id"]: (TOKENS, 2 * TOKENS)}

    seen: list[str] = []
    event.listen(services.sessions.kw["bind"], "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    alice.get("/auth/keys/")
    assert len(seen) == 2
    alice.delete(f"/auth/keys/{limited['id']}/")
    seen.clear()
    alice.get("/auth/keys/")
    assert len(seen) == 1


@pytest.mark.parametrize("ending", ["cancelled", "deleted", "failed", "given-up", "released"])
def test_tokens_that_a_prompt_reserved_and_did_not_use_are_released_when_it_ends(
    budgeted: tuple[ApiUser, Services], worker: Pipeline, sessions: Sessions, ending: str
) -> None:
    alice, _ = budgeted
    ids = [submit(alice).json["id"] for _ in range(3)]
    assert submit(alice).status_code == 429
    if ending == "cancelled":
        alice.post(f"/prompts/{ids[0]}/cancel/")
    elif ending == "deleted":
        alice.delete(f"/prompts/{ids[0]}/")
    elif ending == "failed":
        dataclasses.replace(worker, generator=Script(ProviderError("no", retryable=False))).process(1)
    else:
        with sessions.begin() as session:
            claim = lifecycle.claim(session, ids[0])
            if ending == "released":
                claims.release(session, [claim], grace=lifecycle.MINUTE)
            else:  # its worker was killed, at the last attempt
                session.execute(
                    update(Prompt).where(Prompt.id == ids[0]).values(due_at=claim.queued_at, attempt_limit=1)
                )
                overdue.fail_exhausted(session, ids[0])
    assert statuses(alice, 2) == ([429, 429] if ending == "released" else [202, 429])


class TestAnAttemptThatRunsOn:
    """A worker notices within half a second that its prompt was cancelled or deleted. Until then it may use more."""

    @pytest.fixture(params=["cancelled", "deleted"])
    def end(self, request: pytest.FixtureRequest, budgeted: tuple[ApiUser, Services]) -> Callable[[int], int]:
        alice, _ = budgeted
        if request.param == "cancelled":
            return lambda prompt_id: alice.post(f"/prompts/{prompt_id}/cancel/").status_code
        return lambda prompt_id: alice.delete(f"/prompts/{prompt_id}/").status_code

    def test_its_tokens_stay_reserved_until_its_worker_records_what_it_used(
        self, budgeted: tuple[ApiUser, Services], worker: Pipeline, end: Callable[[int], int]
    ) -> None:
        alice, _ = budgeted
        ids = [submit(alice).json["id"] for _ in range(3)]
        meanwhile: list[object] = []

        def interrupt() -> None:
            if not meanwhile:
                meanwhile.extend([end(ids[0]) in (200, 204), budget(alice), submit(alice).status_code])

        script = Script(SimulatedGenerator.answer(PROMPT).rstrip("."), between_chunks=interrupt)
        dataclasses.replace(worker, generator=script).process(1)
        assert meanwhile == [True, (0, 3), 429]
        (state,) = alice.get("/usage/").json["budgets"]
        assert 0 < state["used_tokens"] <= TOKENS
        assert state["reserved_tokens"] == 2 * TOKENS

    def test_one_that_has_used_nothing_releases_its_tokens(
        self, budgeted: tuple[ApiUser, Services], sessions: Sessions, end: Callable[[int], int]
    ) -> None:
        alice, _ = budgeted
        prompt_id = submit(alice).json["id"]
        with sessions.begin() as session:
            claim = lifecycle.claim(session, prompt_id)
        end(prompt_id)
        assert budget(alice) == (0, 1)
        with sessions.begin() as session:
            claims.settle(session, [claim])
        assert budget(alice) == (0, 0)

    def test_its_tokens_are_released_when_its_lease_lapses_if_its_worker_was_killed(
        self, budgeted: tuple[ApiUser, Services], sessions: Sessions, settings: Settings, end: Callable[[int], int]
    ) -> None:
        alice, _ = budgeted
        prompt_id = submit(alice).json["id"]
        with sessions.begin() as session:
            lifecycle.claim(session, prompt_id)
        end(prompt_id)
        assert budget(alice) == (0, 1)
        with sessions.begin() as session:  # the lease lapses
            session.execute(update(AbandonedAttempt).values(until=text("now()")))
        assert budget(alice) == (0, 0)
        Cleaner(settings, sessions).round()
        with sessions() as session:
            assert session.scalars(select(AbandonedAttempt)).all() == []


def test_a_replay_of_an_idempotency_key_reserves_nothing_again(budgeted: tuple[ApiUser, Services]) -> None:
    alice, _ = budgeted
    for _ in range(3):
        assert submit(alice, headers={"Idempotency-Key": "K"}).status_code == 202
    assert budget(alice) == (0, 1)
    assert statuses(alice, 3) == [202, 202, 429]
    assert submit(alice, headers={"Idempotency-Key": "K"}).status_code == 202


def test_a_refused_submission_does_not_use_its_idempotency_key(budgeted: tuple[ApiUser, Services]) -> None:
    alice, _ = budgeted
    first = submit(alice).json["id"]
    assert statuses(alice, 2) == [202, 202]
    assert submit(alice, headers={"Idempotency-Key": "K"}).status_code == 429
    alice.delete(f"/prompts/{first}/")
    assert submit(alice, headers={"Idempotency-Key": "K"}).status_code == 202


def test_a_retry_counts_against_the_budget(budgeted: tuple[ApiUser, Services]) -> None:
    alice, _ = budgeted
    prompt_id = submit(alice).json["id"]
    alice.post(f"/prompts/{prompt_id}/cancel/")
    assert statuses(alice, 3) == [202] * 3
    problem = assert_problem(alice.post(f"/prompts/{prompt_id}/retry/"), 429)
    assert problem["type"].endswith("/budget-exceeded")
    assert alice.show(prompt_id)["status"] == "cancelled"
    alice.delete(f"/prompts/{prompt_id + 1}/")
    assert alice.post(f"/prompts/{prompt_id}/retry/").status_code == 202
    assert budget(alice) == (0, 3)


def test_a_retry_belongs_to_the_api_key_that_retries(
    budgeted: tuple[ApiUser, Services], worker: Pipeline, sessions: Sessions
) -> None:
    alice, services = budgeted
    key = add_key(sessions, alice.id, monthly_tokens=TOKENS)
    prompt_id = submit(alice).json["id"]
    alice.post(f"/prompts/{prompt_id}/cancel/")
    services.submissions.retry(alice.id, prompt_id, KeyGrant(key, frozenset(), monthly_tokens=TOKENS))
    assert [each["reserved_tokens"] for each in alice.get("/usage/").json["budgets"]] == [TOKENS, TOKENS]
    worker.process(1)
    (completed, cancelled) = alice.get("/usage/?by=key").json["rows"]
    assert (cancelled["key"], cancelled["prompts"], cancelled["total_tokens"]) == (None, 1, 0)
    assert (completed["key"]["id"], completed["prompts"], completed["total_tokens"]) == (key, 1, TOKENS)


def test_a_budget_whose_prompts_used_more_than_they_reserved_refuses_until_the_next_month(
    budgeted: tuple[ApiUser, Services], worker: Pipeline, sessions: Sessions
) -> None:
    alice, _ = budgeted
    submit(alice)
    dataclasses.replace(worker, generator=Script("x" * 40 * TOKENS)).process(1)
    assert statuses(alice, 1) == [429]
    (state,) = alice.get("/usage/").json["budgets"]
    assert state["used_tokens"] > state["monthly_tokens"]
    with sessions.begin() as session:  # a month passes
        session.execute(update(Usage).values(day=text("day - 31")))
    assert statuses(alice, 3) == [202] * 3


def test_tokens_that_are_reserved_in_one_month_and_used_in_the_next_count_in_the_next(
    budgeted: tuple[ApiUser, Services], worker: Pipeline, sessions: Sessions
) -> None:
    alice, _ = budgeted
    submit(alice)
    with sessions.begin() as session:
        session.execute(update(Prompt).values(created_at=text("created_at - interval '31 days'")))
    assert budget(alice) == (0, 1)
    worker.process(1)
    assert budget(alice) == (1, 0)


def test_a_key_has_a_budget_of_its_own_besides_that_of_its_user(
    budgeted: tuple[ApiUser, Services], sessions: Sessions
) -> None:
    alice, services = budgeted
    one, two = (add_key(sessions, alice.id, monthly_tokens=2 * TOKENS) for _ in range(2))

    def refused_by(key: int | None) -> str | None:
        new = NewPrompt(alice.id, PROMPT, False, "r", key_id=key)
        try:
            services.submissions.store(new, None, key and KeyGrant(key, frozenset(), monthly_tokens=2 * TOKENS))
        except BudgetExceededError as error:
            return error.limit
        return None

    assert [refused_by(one) for _ in range(3)] == [None, None, "monthly_tokens"]
    assert [refused_by(two) for _ in range(2)] == [None, "USER_MONTHLY_TOKENS"]
    assert refused_by(None) == "USER_MONTHLY_TOKENS"
    states = alice.get("/usage/").json["budgets"]
    assert [(each["key"], each["reserved_tokens"]) for each in states] == [
        (None, 3 * TOKENS),
        (one, 2 * TOKENS),
        (two, TOKENS),
    ]


def test_the_budget_of_a_revoked_key_is_not_reported_but_still_refuses(
    budgeted: tuple[ApiUser, Services], sessions: Sessions
) -> None:
    alice, services = budgeted
    key = add_key(sessions, alice.id, monthly_tokens=1)
    with sessions.begin() as session:
        session.execute(update(ApiKey).values(revoked_at=text("now()")))
    with pytest.raises(BudgetExceededError):
        services.submissions.store(
            NewPrompt(alice.id, PROMPT, False, "r", key_id=key), None, KeyGrant(key, frozenset(), monthly_tokens=1)
        )
    assert [each["key"] for each in alice.get("/usage/").json["budgets"]] == [None]


def test_only_keys_that_were_revoked_just_now_are_read_with_the_live_ones(
    budgeted: tuple[ApiUser, Services], sessions: Sessions
) -> None:
    """Otherwise a user who makes and revokes keys all the time would make each submission slower."""
    alice, _ = budgeted
    add_key(sessions, alice.id, monthly_tokens=1)
    with sessions.begin() as session:
        session.execute(update(ApiKey).values(revoked_at=text("now() - interval '2 minutes'")))
    now, live = (add_key(sessions, alice.id, monthly_tokens=1) for _ in range(2))
    with sessions.begin() as session:
        session.execute(update(ApiKey).where(ApiKey.id == now).values(revoked_at=text("now()")))
        read = budgets.read(session, [alice.id], None)[alice.id]
    assert [each.key_id for each in read] == [now, live]


def test_a_budget_does_not_count_the_tokens_of_other_users(budgeted: tuple[ApiUser, Services], app: Flask) -> None:
    alice, _ = budgeted
    assert statuses(alice, 4) == [202] * 3 + [429]
    assert statuses(ApiUser(app, "bob"), 1) == [202]


def test_the_number_that_refuses_is_the_one_that_is_reported(
    budgeted: tuple[ApiUser, Services], worker: Pipeline
) -> None:
    alice, _ = budgeted
    submit(alice)
    worker.process(1)
    submit(alice)
    (state,) = alice.get("/usage/").json["budgets"]
    left = state["monthly_tokens"] - state["used_tokens"] - state["reserved_tokens"]
    fits = next(text for text in ("x" * n for n in range(2_000, 0, -1)) if _needs(text) <= left)
    too_long = f"{fits}xxxx"
    assert _needs(too_long) > left
    assert alice.post("/prompts/", json={"prompt_text": too_long}).status_code == 429
    assert alice.post("/prompts/", json={"prompt_text": fits}).status_code == 202


def _needs(prompt_text: str) -> int:
    return sum(SimulatedGenerator.usage(prompt_text, SimulatedGenerator.answer(prompt_text)))


# Exact under concurrency


def test_of_1000_concurrent_submissions_against_a_budget_of_500_exactly_500_are_accepted(
    make_app: MakeApp, worker: Pipeline, sessions: Sessions
) -> None:
    changes = {"user_monthly_tokens": 500 * TOKENS, "prompt_rate_limit": UNLIMITED}
    made = [make_app(**changes) for _ in range(2)]
    alice = ApiUser(made[0][0], "alice")
    start, outcomes = threading.Barrier(1_000), []

    def submit_one(services: Services) -> None:
        start.wait(MAX_WAIT_SECONDS)
        try:
            outcomes.append(services.submissions.store(NewPrompt(alice.id, PROMPT, False, "r"), None))
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=submit_one, args=(made[i % 2][1],)) for i in range(1_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MAX_WAIT_SECONDS)
    accepted = [each for each in outcomes if isinstance(each, Stored)]
    refused = [each for each in outcomes if isinstance(each, BudgetExceededError)]
    assert (len(accepted), len(refused)) == (500, 500)
    while worker.process(100).completed:
        pass
    with sessions() as session:
        finished, *tokens = ledger(session, alice.id)
        assert tuple(tokens) == of_prompts(session, alice.id)
        assert (finished, sum(tokens)) == (500, 500 * TOKENS)
        (state,) = budgets.read(session, [alice.id], 500 * TOKENS)[alice.id]
    assert (state.left, state.reserved_tokens) == (0, 0)


def test_groups_of_several_users_never_wait_for_each_other(make_app: MakeApp, sessions: Sessions) -> None:
    made = [make_app(prompt_rate_limit=UNLIMITED) for _ in range(2)]
    people = [ApiUser(made[0][0], name) for name in ("alice", "bob", "carol")]
    keys = {user.id: add_key(sessions, user.id, monthly_tokens=10**9) for user in people}
    failed: list[object] = []

    def submit_groups(services: Services, order: list[int], with_budget: int) -> None:
        for _ in range(30):
            group = []
            for user_id in order:
                new = NewPrompt(user_id, PROMPT, False, "r")
                if user_id == with_budget:
                    new = new._replace(key_id=keys[user_id], reserved_tokens=TOKENS)
                group.append(_Submission(new, None, Caller(user_id)))
            try:
                outcomes = services.submissions._store_group(group)
            except Exception as error:
                outcomes = [error]
            failed.extend(each for each in outcomes if not isinstance(each, Stored))

    ids = [user.id for user in people]
    plans = [(made[0][1], ids, ids[-1]), (made[1][1], ids[::-1], ids[0])]
    threads = [threading.Thread(target=submit_groups, args=plan) for plan in plans]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MAX_WAIT_SECONDS)
    assert failed == []


# What it costs


def test_a_submission_without_a_budget_asks_for_none(make_app: MakeApp) -> None:
    app, services = make_app()
    alice, seen = ApiUser(app, "alice"), []
    for engine in (services.sessions.kw["bind"], services.autocommit_engine):
        event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    submit(alice)
    assert not [statement for statement in seen if "monthly_tokens" in statement]


def test_a_submission_with_a_budget_is_one_transaction_of_three_statements(make_app: MakeApp) -> None:
    app, services = make_app(user_monthly_tokens=10**6, prompt_rate_limit=UNLIMITED)
    alice, seen, commits = ApiUser(app, "alice"), [], []
    submit(alice)
    for engine in (services.sessions.kw["bind"], services.autocommit_engine):
        event.listen(engine, "before_cursor_execute", lambda *arguments: seen.append(arguments[2]))
    event.listen(services.sessions.kw["bind"], "commit", commits.append)
    submit(alice)
    assert len([statement for statement in seen if "token_families" not in statement]) == 3, seen
    assert len(commits) == 1


# How much is reserved


@pytest.mark.parametrize(
    ("changes", "history", "tokens"),
    [
        ({}, 0, TOKENS),
        ({}, 5, TOKENS),
        ({"generator": "my.module:Model"}, 0, 4 + 1_000),
        ({"generator": "my.module:Model", "openai_max_tokens": 50}, 0, 4 + 1_000),
        ({"generator": "my.module:Model", "reserved_output_tokens": 7}, 0, 4 + 7),
        ({"generator": "my.module:Model", "history_characters": 401}, 1, 4 + 101 + 1_000),
        ({"generator": "openai"}, 0, 4 + 1_000),
        ({"generator": "openai", "openai_max_tokens": 50}, 0, 4 + 50),
        ({"generator": "openai", "openai_max_tokens": 50, "openai_system_prompt": "x" * 41}, 0, 11 + 4 + 50),
    ],
)
def test_a_prompt_reserves_its_tokens_its_history_and_the_longest_answer(
    settings: Settings, changes: dict[str, object], history: int, tokens: int
) -> None:
    budgeted = settings.model_copy(update={"user_monthly_tokens": 1} | changes)
    assert Estimator(budgeted).tokens(PROMPT, history, None) == tokens
    assert Estimator(settings.model_copy(update=changes)).tokens(PROMPT, history, 1) == tokens
    assert Estimator(settings.model_copy(update=changes)).tokens(PROMPT, history, None) == 0


@pytest.mark.parametrize(
    ("changes", "request_", "tokens"),
    [
        ({}, {"max_output_tokens": 5}, 4 + 5),
        ({}, {"max_output_tokens": 5_000}, 4 + 5_000),
        ({"generator": "openai", "openai_max_tokens": 50}, {"max_output_tokens": 5_000}, 4 + 50),
        ({}, {"instructions": "x" * 40}, 10 + 4 + 1_000),
        ({}, {"messages": [{"role": "user", "content": "x" * 40}, {"role": "assistant", "content": "x" * 8}]},
         12 + 4 + 1_000),
        ({}, {"input": [{"role": "user", "content": "x" * 40}]}, 10 + 1_000),
        ({}, {"tools": [{"name": "x" * 28}]}, 10 + 4 + 1_000),
    ],
)  # fmt: skip
def test_a_prompt_reserves_for_its_whole_conversation_and_for_max_output_tokens(
    settings: Settings, changes: dict[str, object], request_: dict, tokens: int
) -> None:
    budgeted = settings.model_copy(update={"user_monthly_tokens": 1, "generator": "my.module:Model"} | changes)
    assert Estimator(budgeted).tokens(PROMPT, 0, None, request_) == tokens


def test_a_simulated_prompt_reserves_what_it_uses_and_a_retry_the_same(make_app: MakeApp, worker: Pipeline) -> None:
    app, _ = make_app(user_monthly_tokens=1_000)
    alice = ApiUser(app, "alice")
    body = {"prompt_text": PROMPT, "instructions": "Be brief, and answer in rhyme.", "max_output_tokens": 5}
    prompt_id = alice.post("/prompts/", json=body).json["id"]

    def reserved() -> int:
        return alice.get("/usage/").json["budgets"][0]["reserved_tokens"]

    first = reserved()
    alice.post(f"/prompts/{prompt_id}/cancel/")
    assert reserved() == 0
    alice.post(f"/prompts/{prompt_id}/retry/")
    assert reserved() == first
    worker.process(1)
    assert (reserved(), alice.show(prompt_id)["usage"]["total_tokens"]) == (0, first)


def test_the_rest_of_a_budget_is_neither_used_nor_reserved() -> None:
    assert Budget(None, 100, 20, 30, datetime.now(UTC)).left == 50
