"""A provider that takes nothing for a while: prompts wait for it, and it is left alone."""

import dataclasses
from datetime import timedelta

import pytest
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.errors import ProviderUnavailableError
from shared.providers import Embedders
from shared.providers.hashing import HashingEmbedder
from tests.support.client import ApiUser
from tests.support.providers import Script
from worker.pipeline import Pipeline
from worker.provider_backoff import MAX_SECONDS, ProviderBackoff

AWAY = ProviderUnavailableError("The provider is away.")


def answered_by(worker: Pipeline, *steps: str | Exception, **changes: object) -> Pipeline:
    pause = ProviderBackoff(timedelta(hours=1))
    return dataclasses.replace(worker, generator=Script(*steps), provider_backoff=pause, **changes)


def wait_over(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(
            text("UPDATE prompts SET due_at = now() - interval '1 s', not_before = NULL WHERE status = 'queued'")
        )


def put_off_for(sessions: Sessions, prompt_id: int) -> float:
    """The seconds that the prompt has to wait."""
    with sessions() as session:
        query = text("SELECT extract(epoch FROM not_before - now()) FROM prompts WHERE id = :id")
        return float(session.scalar(query, {"id": prompt_id}) or 0)


def test_however_often_it_is_away_no_attempt_is_used_up(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    prompt_id = alice.submit()
    for _ in range(20):
        answered_by(worker, AWAY).process([prompt_id])
        assert alice.show(prompt_id)["status"] == "queued"
        wait_over(sessions)
    answered_by(worker, "the answer").process([prompt_id])
    assert alice.show(prompt_id)["status"] == "completed"


def test_it_is_not_asked_again_before_the_pause_is_over(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    worker = answered_by(worker, ProviderUnavailableError("Too many requests.", retry_after=100), "the answer")
    ids = [alice.submit(f"prompt {i}") for i in range(5)]
    for prompt_id in ids:
        worker.process([prompt_id])
    assert worker.generator.calls == 1
    for prompt_id in ids:
        assert 95 <= put_off_for(sessions, prompt_id) <= 150
    assert [alice.show(prompt_id)["attempt"] for prompt_id in ids] == [1, 0, 0, 0, 0]


def test_afterwards_all_are_answered(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    worker = answered_by(worker, ProviderUnavailableError("Too many requests.", retry_after=0), "the answer")
    ids = [alice.submit(f"prompt {i}") for i in range(5)]
    for _ in range(2):
        for prompt_id in ids:
            worker.process([prompt_id])
        wait_over(sessions)
        worker.provider_backoff._until = 0.0
    assert {alice.show(prompt_id)["status"] for prompt_id in ids} == {"completed"}


def test_after_its_patience_refusals_count_as_attempts(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    prompt_id = alice.submit()
    for _ in range(3):
        answered_by(worker, AWAY).process([prompt_id])
        wait_over(sessions)
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '11 min'"))
    for _ in range(5):
        assert alice.show(prompt_id)["status"] == "queued"
        answered_by(worker, AWAY, provider_patience=timedelta(minutes=10)).process([prompt_id])
        wait_over(sessions)
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["attempt"], shown["error"]) == ("failed", 8, "The provider is away.")


def test_no_refusal_has_it_wait_beyond_its_patience(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    later = ProviderUnavailableError("later", retry_after=500)
    patient = answered_by(worker, later, provider_patience=timedelta(minutes=10))
    claimed, reschedule_queued = alice.submit("claimed"), alice.submit("put off")
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '9 min'"))
    patient.process([claimed])
    patient.process([reschedule_queued])
    for prompt_id in (claimed, reschedule_queued):
        assert 30 <= put_off_for(sessions, prompt_id) <= 60


def test_what_waits_already_is_not_put_off_again(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    prompt_id = alice.submit()
    answered_by(worker, ProviderUnavailableError("later", retry_after=500)).process([prompt_id])
    before = put_off_for(sessions, prompt_id)
    brief = answered_by(worker, AWAY)
    brief.provider_backoff.record_failure(1)
    brief.process([prompt_id])
    assert put_off_for(sessions, prompt_id) > before - 10


def test_a_group_is_one_refusal(alice: ApiUser, worker: Pipeline) -> None:
    ids = [alice.submit(f"prompt {i}") for i in range(10)]
    group = answered_by(worker, AWAY)
    group.generator.max_batch_size = 100
    group.process(ids)
    assert group.generator.calls == 1
    assert group.provider_backoff.delay.total_seconds() <= 1.5
    assert {alice.show(prompt_id)["status"] for prompt_id in ids} == {"queued"}


def test_in_a_pause_a_prompt_without_patience_is_tried(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    impatient = answered_by(worker, AWAY, provider_patience=timedelta(minutes=10))
    old, new = alice.submit("old"), alice.submit("new")
    impatient.process([new])
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '11 min' WHERE id = :id"), {"id": old})
    impatient.process([old])
    assert (alice.show(old)["attempt"], impatient.generator.calls) == (1, 2)


def test_a_retry_by_its_user_brings_new_patience(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    impatient = answered_by(worker, AWAY, provider_patience=timedelta(minutes=10))
    prompt_id = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '11 min', attempt_limit = 1"))
    impatient.process([prompt_id])
    assert alice.show(prompt_id)["status"] == "failed"
    alice.post(f"/prompts/{prompt_id}/retry/")
    answered_by(worker, AWAY, provider_patience=timedelta(minutes=10)).process([prompt_id])
    assert alice.show(prompt_id)["status"] == "queued"


def test_an_embedder_that_is_away_costs_no_answer(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    class Away(HashingEmbedder):
        def embed(self, texts: object) -> object:
            raise AWAY

    prompt_id = alice.submit()
    without = answered_by(worker, "the answer", embedders=Embedders(Away()))
    without.process([prompt_id])
    assert without.generator.calls == 0
    assert (alice.show(prompt_id)["status"], alice.show(prompt_id)["error"]) == ("queued", None)


class TestPause:
    def test_doubles_and_is_bounded(self) -> None:
        pause = ProviderBackoff(timedelta(hours=1))
        for expected in (1, 2, 4, 8, 16, 30, 30):
            pause._until = 0.0
            pause.record_failure(None)
            assert 0.9 * expected <= pause.delay.total_seconds() <= 1.5 * expected
        assert MAX_SECONDS == 30

    def test_begins_anew_after_an_answer(self) -> None:
        pause = ProviderBackoff(timedelta(hours=1))
        for _ in range(5):
            pause.record_failure(None)
        pause.record_success()
        pause._until = 0.0
        pause.record_failure(None)
        assert pause.delay.total_seconds() <= 1.5

    @pytest.mark.parametrize(("asked", "seconds"), [(20.0, 20), (0.0, 1), (10**9, 3600)])
    def test_is_as_long_as_the_provider_asks_within_bounds(self, asked: float, seconds: float) -> None:
        pause = ProviderBackoff(timedelta(hours=1))
        pause.record_failure(asked)
        assert 0.9 * seconds <= pause.delay.total_seconds() <= 1.5 * seconds
