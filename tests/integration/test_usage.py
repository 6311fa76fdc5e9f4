"""The ledger counts what every attempt uses, once. `test_usage_report.py` has `GET /usage/`."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from api.services import Services
from shared.accounts.metering import Prices
from shared.db.engine import Sessions
from shared.db.models import Prompt, Usage
from shared.errors import ProviderError, ProviderUnavailableError
from shared.prompts import claims, overdue, submission
from shared.prompts.answer import Answer
from shared.prompts.claims import Claim
from shared.prompts.completion import Outcome
from shared.prompts.submission import NewPrompt
from shared.providers import GenerationRequest
from shared.providers import Usage as Reported
from shared.providers.tokens import estimate_tokens
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import ApiUser
from tests.support.servers import MAX_WAIT_SECONDS
from tests.support.usage import add_key, ledger, of_prompts
from worker.leases import WorkerStopping
from worker.pipeline import Pipeline

PROMPT = "What is a tide?"  # 15 bytes
PROMPT_TOKENS = 4


class Scripted:
    """Yields, raises or calls each part of a script."""

    name, max_batch_size = "scripted", 1

    def __init__(self, *script: str | Reported | BaseException | Callable[[], object]) -> None:
        self._script = script

    def generate(self, _: GenerationRequest) -> Iterator[str | Reported]:
        for part in self._script:
            if isinstance(part, BaseException):
                raise part
            if callable(part):
                part()
            else:
                yield part


def answering(worker: Pipeline, *script: str | Reported | BaseException | Callable[[], object]) -> Pipeline:
    return dataclasses.replace(worker, generator=Scripted(*script))


def used(sessions: Sessions, user: ApiUser) -> tuple[int, int, int]:
    """The user's ledger, which must be the sum of the user's prompts."""
    with sessions() as session:
        sums = ledger(session, user.id)
        assert sums[1:] == of_prompts(session, user.id)
        return sums


# What an attempt uses


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (("12345678", Reported("m", 100, 20)), (1, 100, 20)),
        (("12345678", "9"), (1, PROMPT_TOKENS, 3)),
        (("ééé",), (1, PROMPT_TOKENS, 2)),
        (("12345678", Reported("m", 100, None)), (1, 100, 2)),
        (("12345678", Reported("m", -1, 10**20)), (1, PROMPT_TOKENS, 2)),
        (("1234", Reported("m", 1, 1), "5678", Reported("m", 2, 3)), (1, 2, 3)),
    ],
    ids=["reported", "estimated", "by-bytes", "partly-reported", "implausible", "cumulative"],
)
def test_tokens_count_as_the_generator_reports_them_and_are_estimated_otherwise(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, script: tuple, expected: tuple[int, int, int]
) -> None:
    alice.submit(PROMPT)
    answering(worker, *script).process(1)
    assert used(sessions, alice) == expected


@pytest.mark.parametrize(
    ("script", "expected", "status"),
    [
        ((ProviderError("no", retryable=False),), (1, 0, 0), "failed"),
        (("12345678", ProviderError("no", retryable=False)), (1, PROMPT_TOKENS, 2), "failed"),
        (("", Reported("m", 7, 9)), (0, 7, 9), "queued"),
        (("12345678", ConnectionError()), (0, PROMPT_TOKENS, 2), "queued"),
        (("12345678", ProviderUnavailableError("busy")), (0, PROMPT_TOKENS, 2), "queued"),
        ((ProviderUnavailableError("busy"),), (0, 0, 0), "queued"),
        ((SoftTimeLimitExceeded(),), (0, PROMPT_TOKENS, 0), "queued"),
        (("x" * 2_000,), (1, PROMPT_TOKENS, 500), "failed"),
    ],
    ids=["refused", "failed", "no-text", "rescheduled", "released", "unavailable", "timeout", "too-long"],
)
def test_a_failed_attempt_counts_what_it_used(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, script: tuple, expected: tuple, status: str
) -> None:
    prompt_id = alice.submit(PROMPT)
    answering(dataclasses.replace(worker, max_answer_bytes=1_024), *script).process(1)
    assert (used(sessions, alice), alice.show(prompt_id)["status"]) == (expected, status)


def test_all_attempts_at_a_prompt_count(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    alice.submit(PROMPT)
    answering(worker, "12345678", ConnectionError()).process(1)
    with sessions.begin() as session:
        lifecycle.end_backoffs(session)
    answering(worker, "1234", Reported("m", 50, 5)).process(1)
    assert used(sessions, alice) == (1, PROMPT_TOKENS + 50, 2 + 5)


def test_a_worker_that_stops_counts_what_its_attempts_used(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    alice.submit(PROMPT)
    with pytest.raises(WorkerStopping):
        answering(worker, "12345678", WorkerStopping()).process(1)
    assert used(sessions, alice) == (0, PROMPT_TOKENS, 2)


@pytest.mark.parametrize("path", ["/prompts/{}/cancel/", "/prompts/{}/"], ids=["cancelled", "deleted"])
@pytest.mark.parametrize("is_noticed", [True, False], ids=["while-it-runs", "at-its-end"])
def test_a_prompt_that_is_cancelled_or_deleted_while_a_worker_answers_counts_what_it_used(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, path: str, is_noticed: bool
) -> None:
    prompt_id = alice.submit(PROMPT)

    def end() -> None:
        alice.call("POST" if "cancel" in path else "DELETE", path.format(prompt_id))
        if is_noticed:
            worker.leases.check()

    answering(worker, "12345678", end, "9999").process(1)
    with sessions() as session:
        assert ledger(session, alice.id) == ("cancel" in path, PROMPT_TOKENS, 2 if is_noticed else 3)


def test_an_answer_from_an_earlier_prompt_uses_nothing(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    for _ in range(2):
        alice.post("/prompts/", json={"prompt_text": PROMPT, "cache": True})
        worker.process(1)
    assert [prompt["cached_from"] is None for prompt in alice.get("/prompts/").json] == [False, True]
    answer = alice.get("/prompts/").json[0]["response_text"]
    assert used(sessions, alice) == (2, PROMPT_TOKENS, estimate_tokens(answer))


def test_the_history_counts_as_part_of_the_prompt(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    alice.submit(PROMPT)
    answering(worker, "12345678").process(1)
    alice.post("/prompts/", json={"prompt_text": PROMPT, "history": 1})
    answering(worker, "1234").process(1)
    assert used(sessions, alice) == (2, PROMPT_TOKENS + (PROMPT_TOKENS + 2 + PROMPT_TOKENS), 2 + 1)


def test_the_simulated_generator_reports_its_tokens(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    prompt_id = alice.submit(PROMPT)
    worker.process(1)
    shown = alice.show(prompt_id)["usage"]
    assert used(sessions, alice) == (1, shown["prompt_tokens"], shown["completion_tokens"])
    assert shown["prompt_tokens"] == PROMPT_TOKENS


# Each attempt once


def test_an_answer_that_is_stored_again_after_a_lost_commit_counts_once(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.submit(PROMPT)
    complete, calls = claims.complete, []

    def lose_first_answer(*args: object) -> object:
        result = complete(*args)
        calls.append(result)
        if len(calls) == 1:
            raise OperationalError("", {}, Exception())
        return result

    monkeypatch.setattr(claims, "complete", lose_first_answer)
    answering(worker, "12345678").process(1)
    assert len(calls) == 2
    assert used(sessions, alice) == (1, PROMPT_TOKENS, 2)


def test_a_lapsed_attempt_counts_when_its_worker_returns_but_not_twice(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    prompt_id = alice.submit(PROMPT)

    def lapse() -> None:
        with sessions.begin() as session:
            session.execute(update(Prompt).values(due_at=Prompt.due_at - timedelta(days=1)))
            overdue.queue_lapsed(session, grace=timedelta(0), limit=1)

    answering(worker, "12345678", lapse).process(1)
    assert used(sessions, alice) == (0, PROMPT_TOKENS, 2)
    with sessions.begin() as session:
        late = lifecycle.claim(session, prompt_id)
        late.meter.report(10, 10)
        claims.settle(session, [late])
        late.meter.report(10, 10)
        claims.settle(session, [late])
    assert used(sessions, alice) == (0, PROMPT_TOKENS + 10, 12)


def test_the_usage_of_a_deleted_prompt_is_recorded_once(alice: ApiUser, sessions: Sessions) -> None:
    prompt_id = alice.submit(PROMPT)
    with sessions.begin() as session:
        claim = lifecycle.claim(session, prompt_id)
        submission.delete(session, alice.id, prompt_id)
        claim.meter.report(5, 6)
        claims.reschedule(session, claim, lifecycle.MINUTE)
        claims.release(session, [claim], grace=lifecycle.MINUTE)
        assert ledger(session, alice.id) == (0, 5, 6)


def test_each_prompt_of_a_group_counts_for_its_own_user_key_and_route(
    alice: ApiUser, bob: ApiUser, services: Services, worker: Pipeline, sessions: Sessions
) -> None:
    key = add_key(sessions, alice.id)
    for user, key_id in [(alice, key), (alice, None), (alice, key), (bob, None)]:
        services.submissions.store(NewPrompt(user.id, PROMPT, False, "r", key_id=key_id), None)
    worker.process(4)
    with sessions() as session:
        rows = session.query(Usage).order_by(Usage.user_id, Usage.key_id).all()
    assert [(row.user_id, row.key_id, row.route, row.prompts) for row in rows] == [
        (alice.id, 0, "default", 1),
        (alice.id, key, "default", 2),
        (bob.id, 0, "default", 1),
    ]


def test_the_usage_of_a_deleted_user_is_not_recorded(alice: ApiUser, sessions: Sessions) -> None:
    prompt_id = alice.submit(PROMPT)
    with sessions.begin() as session:
        claim = lifecycle.claim(session, prompt_id)
        session.execute(Prompt.__table__.metadata.tables["users"].delete())
        claim.meter.report(5, 6)
        claims.settle(session, [claim])
        assert ledger(session, alice.id) == (0, 0, 0)


def test_attempts_that_end_at_the_same_time_in_any_order_are_all_counted(
    alice: ApiUser, bob: ApiUser, sessions: Sessions
) -> None:
    people = [alice, bob]
    for i in range(40):
        people[i % 2].submit(PROMPT)
    with sessions.begin() as session:
        held = lifecycle.claim_any(session, 40)
    for claim in held:
        claim.meter.report(3, 4)
    parts = [held[0:8], held[8:16][::-1], held[16:24], held[24:32][::-1], held[32:40]]
    failed: list[Exception] = []

    def end(part: list[Claim]) -> None:
        try:
            for again in range(2):  # each twice, as after a lost answer of the database
                with sessions.begin() as session:
                    claims.complete(session, [outcome(claim) for claim in part[:4]])
                with sessions.begin() as session:
                    claims.release(session, part[4:6], grace=lifecycle.MINUTE)
                for claim in part[6:]:
                    with sessions.begin() as session:
                        claims.reschedule(session, claim, lifecycle.MINUTE)
                if not again:
                    for claim in part[4:]:
                        claim.meter.report(3, 4)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=end, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MAX_WAIT_SECONDS)
    assert failed == []
    assert used(sessions, alice) == used(sessions, bob) == (10, 20 * 3, 20 * 4)


def outcome(claim: Claim) -> Outcome:
    return Outcome(claim.id, claim.attempt, used=claim.meter.used, answer=Answer("An answer.", "test"))


# Prices


def test_the_cost_is_exact_at_the_prices_of_the_route(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    priced = dataclasses.replace(worker, prices=Prices(Decimal("0.15"), Decimal("0.6")))
    for _ in range(10):
        alice.submit(PROMPT)
        answering(priced, "1234", Reported("m", 1, 1)).process(1)
    with sessions() as session:
        assert session.query(Usage.cost).scalar() == Decimal("0.0000075")
    assert alice.get("/usage/").json["total"]["cost"] == 0.0000075


def test_workers_take_the_prices_of_the_settings(settings: Settings) -> None:
    changed = settings.model_copy(update={"input_price": Decimal("0.15"), "output_price": Decimal("0.6")})
    assert Prices.from_settings(changed).cost(2_000_000, 1_000_000) == Decimal("0.9")
