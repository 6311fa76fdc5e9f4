"""A provider that is unavailable for a while: prompts wait for it, and the worker backs off."""

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

UNAVAILABLE = ProviderUnavailableError("The provider is unavailable.")


def answered_by(worker: Pipeline, *steps: str | Exception, **changes: object) -> Pipeline:
    pause = ProviderBackoff(timedelta(hours=1))
    return dataclasses.replace(worker, generator=Script(*steps), provider_backoff=pause, **changes)


def end_waits(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(
            text("UPDATE prompts SET due_at = now() - interval '1 s', not_before = NULL WHERE status = 'queued'")
        )


def seconds_until_due(sessions: Sessions, prompt_id: int) -> float:
    """Return the seconds until the prompt may be claimed."""
    with sessions() as session:
        query = text("SELECT extract(epoch FROM not_before - now()) FROM prompts WHERE id = :id")
        return float(session.scalar(query, {"id": prompt_id}) or 0)


def test_an_unavailable_provider_uses_up_no_attempt(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    prompt_id = alice.submit()
    for _ in range(20):
        answered_by(worker, UNAVAILABLE).process([prompt_id])
        assert alice.show(prompt_id)["status"] == "queued"
        end_waits(sessions)
    answered_by(worker, "the answer").process([prompt_id])
    assert alice.show(prompt_id)["status"] == "completed"


def test_the_provider_is_not_called_before_the_pause_is_over(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    worker = answered_by(worker, ProviderUnavailableError("Too many requests.", retry_after=100), "the answer")
    ids = [alice.submit(f"prompt {i}") for i in range(5)]
    for prompt_id in ids:
        worker.process([prompt_id])
    assert worker.generator.calls == 1
    for prompt_id in ids:
        assert 95 <= seconds_until_due(sessions, prompt_id) <= 150
    assert [alice.show(prompt_id)["attempt"] for prompt_id in ids] == [1, 0, 0, 0, 0]


def test_all_waiting_prompts_are_answered_after_the_pause(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    worker = answered_by(worker, ProviderUnavailableError("Too many requests.", retry_after=0), "the answer")
    ids = [alice.submit(f"prompt {i}") for i in range(5)]
    for _ in range(2):
        for prompt_id in ids:
            worker.process([prompt_id])
        end_waits(sessions)
        worker.provider_backoff._until = 0.0
    assert {alice.show(prompt_id)["status"] for prompt_id in ids} == {"completed"}


def test_refusals_count_as_attempts_once_a_prompts_patience_has_run_out(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    prompt_id = alice.submit()
    for _ in range(3):
        answered_by(worker, UNAVAILABLE).process([prompt_id])
        end_waits(sessions)
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '11 min'"))
    for _ in range(5):
        assert alice.show(prompt_id)["status"] == "queued"
        answered_by(worker, UNAVAILABLE, provider_patience=timedelta(minutes=10)).process([prompt_id])
        end_waits(sessions)
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["attempt"], shown["error"]) == ("failed", 8, "The provider is unavailable.")


def test_a_refusal_reschedules_no_prompt_beyond_its_patience(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    later = ProviderUnavailableError("later", retry_after=500)
    patient = answered_by(worker, later, provider_patience=timedelta(minutes=10))
    claimed, queued = alice.submit("claimed"), alice.submit("queued")
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '9 min'"))
    patient.process([claimed])
    patient.process([queued])
    for prompt_id in (claimed, queued):
        assert 30 <= seconds_until_due(sessions, prompt_id) <= 60


def test_a_prompt_that_waits_longer_already_is_not_rescheduled(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    prompt_id = alice.submit()
    answered_by(worker, ProviderUnavailableError("later", retry_after=500)).process([prompt_id])
    before = seconds_until_due(sessions, prompt_id)
    brief = answered_by(worker, UNAVAILABLE)
    brief.provider_backoff.record_failure(1)
    brief.process([prompt_id])
    assert seconds_until_due(sessions, prompt_id) > before - 10


def test_the_refusal_of_a_group_counts_once(alice: ApiUser, worker: Pipeline) -> None:
    ids = [alice.submit(f"prompt {i}") for i in range(10)]
    group = answered_by(worker, UNAVAILABLE)
    group.generator.max_batch_size = 100
    group.process(ids)
    assert group.generator.calls == 1
    assert group.provider_backoff.delay.total_seconds() <= 1.5
    assert {alice.show(prompt_id)["status"] for prompt_id in ids} == {"queued"}


def test_a_prompt_whose_patience_has_run_out_is_attempted_during_a_pause(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    impatient = answered_by(worker, UNAVAILABLE, provider_patience=timedelta(minutes=10))
    old, new = alice.submit("old"), alice.submit("new")
    impatient.process([new])
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '11 min' WHERE id = :id"), {"id": old})
    impatient.process([old])
    assert (alice.show(old)["attempt"], impatient.generator.calls) == (1, 2)


def test_a_retry_by_the_user_renews_a_prompts_patience(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    impatient = answered_by(worker, UNAVAILABLE, provider_patience=timedelta(minutes=10))
    prompt_id = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '11 min', attempt_limit = 1"))
    impatient.process([prompt_id])
    assert alice.show(prompt_id)["status"] == "failed"
    alice.post(f"/prompts/{prompt_id}/retry/")
    answered_by(worker, UNAVAILABLE, provider_patience=timedelta(minutes=10)).process([prompt_id])
    assert alice.show(prompt_id)["status"] == "queued"


def test_an_unavailable_embedder_prevents_the_call_to_the_generator(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    class UnavailableEmbedder(HashingEmbedder):
        def embed(self, texts: object) -> object:
            raise UNAVAILABLE

    prompt_id = alice.submit()
    without = answered_by(worker, "the answer", embedders=Embedders(UnavailableEmbedder()))
    without.process([prompt_id])
    assert without.generator.calls == 0
    assert (alice.show(prompt_id)["status"], alice.show(prompt_id)["error"]) == ("queued", None)


class TestProviderBackoff:
    def test_the_pause_doubles_up_to_a_limit(self) -> None:
        pause = ProviderBackoff(timedelta(hours=1))
        for expected in (1, 2, 4, 8, 16, 30, 30):
            pause._until = 0.0
            pause.record_failure(None)
            assert 0.9 * expected <= pause.delay.total_seconds() <= 1.5 * expected
        assert MAX_SECONDS == 30

    def test_the_pause_starts_over_after_an_answer(self) -> None:
        pause = ProviderBackoff(timedelta(hours=1))
        for _ in range(5):
            pause.record_failure(None)
        pause.record_success()
        pause._until = 0.0
        pause.record_failure(None)
        assert pause.delay.total_seconds() <= 1.5

    @pytest.mark.parametrize(("asked", "seconds"), [(20.0, 20), (0.0, 1), (10**9, 3600)])
    def test_the_pause_follows_retry_after_within_its_limits(self, asked: float, seconds: float) -> None:
        pause = ProviderBackoff(timedelta(hours=1))
        pause.record_failure(asked)
        assert 0.9 * seconds <= pause.delay.total_seconds() <= 1.5 * seconds
