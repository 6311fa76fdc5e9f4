"""The pause of an unavailable provider: its prompts wait, and one at a time probes whether it is available again."""

import dataclasses
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import structlog
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.db.engine import Sessions
from shared.errors import ProviderError, ProviderUnavailableError
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.prompts import claims, provider_pause
from shared.providers import GenerationRequest, Usage
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import ApiUser
from tests.support.lifecycle import RecordingQueue
from tests.support.providers import Script
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from worker.leases import WorkerStopping
from worker.maintenance.reaper import Reaper
from worker.pipeline import Pipeline
from worker.provider_status import ProviderStatus

UNAVAILABLE = ProviderUnavailableError("Connection refused by http://model:8000.")


def answered_by(worker: Pipeline, *steps: str | Exception, max_pause: float = 3_600, **changes: object) -> Pipeline:
    queue = RecordingQueue()
    status = ProviderStatus(worker.sessions, queue, worker.route, timedelta(seconds=max_pause))
    return dataclasses.replace(worker, generator=Script(*steps), queue=queue, provider_status=status, **changes)


def end_pause(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(text("UPDATE routes SET paused_until = now() - interval '1 ms' WHERE paused_until IS NOT NULL"))


def pause_seconds(sessions: Sessions, since: datetime | None = None) -> float | None:
    """The seconds from now, or from a time, until the provider is tried again; None while it is available."""
    with sessions() as session:
        left = text(
            "SELECT extract(epoch FROM paused_until - coalesce(CAST(:since AS timestamptz), now())) FROM routes"
        )
        seconds = session.scalar(left, {"since": since})
        return None if seconds is None else float(seconds)


def database_time(sessions: Sessions) -> datetime:
    with sessions() as session:
        return session.scalar(text("SELECT clock_timestamp()"))


@pytest.fixture
def reaper(settings: Settings, sessions: Sessions) -> Reaper:
    redis = make_redis(settings)
    return Reaper(settings, sessions, Queue(make_celery(settings), redis), Announcer(redis))


def test_an_unavailable_provider_uses_up_no_attempt(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    prompt_id = alice.submit()
    for _ in range(20):
        answered_by(worker, UNAVAILABLE).process(1)
        assert alice.show(prompt_id)["status"] == "queued"
        end_pause(sessions)
    answered_by(worker, "the answer").process(1)
    assert alice.show(prompt_id)["status"] == "completed"


def test_no_prompt_is_claimed_during_the_pause(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    worker = answered_by(worker, ProviderUnavailableError("Too many requests.", retry_after=100), "the answer")
    ids = [alice.submit(f"prompt {i}") for i in range(5)]
    for _ in ids:
        worker.process(1)
    assert worker.generator.calls == 1
    assert 95 <= pause_seconds(sessions) <= 150
    assert [alice.show(prompt_id)["attempt"] for prompt_id in ids] == [1, 0, 0, 0, 0]


def test_a_pause_is_logged_once_although_several_prompts_find_the_provider_unavailable(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    alice.submit()
    refused = answered_by(worker, "")
    for failures in (1, 2):
        with sessions.begin() as session:
            held = claims.claim(session, worker.route, 5, timedelta(minutes=1)).claims
        with structlog.testing.capture_logs() as lines:
            for claim in (*held, dataclasses.replace(held[0], probe=None)):
                refused._failures.handle([claim], UNAVAILABLE)
        (line,) = lines
        assert line["event"] == "provider unavailable, prompts wait"
        assert (line["route"], line["error"]) == ("default", "ProviderUnavailableError")
        assert line["detail"] == "Connection refused by http://model:8000."
        assert failures <= line["seconds"] <= 1.5 * failures
        assert line["next_attempt_at"].endswith("Z")
        with sessions() as session:
            assert session.scalar(text("SELECT failures FROM routes")) == failures
        end_pause(sessions)


def test_a_prompt_that_was_refused_keeps_its_turn(alice: ApiUser, worker: Pipeline) -> None:
    first, second = alice.submit("first"), alice.submit("second")
    answered_by(worker, UNAVAILABLE).process(1)
    assert [alice.show(prompt_id)["position"] for prompt_id in (first, second)] == [1, 2]


def test_a_waiting_prompt_shows_why_and_when_the_provider_is_tried_again(
    alice: ApiUser, bob: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    prompt_id, other = alice.submit(), bob.submit()
    assert alice.show(prompt_id)["waiting_for"] is None
    before = alice.get(f"/prompts/{prompt_id}/").headers["ETag"]
    answered_by(worker, UNAVAILABLE).process(1)
    shown = alice.get(f"/prompts/{prompt_id}/", headers={"If-None-Match": before}).json
    assert shown["waiting_for"]["reason"] == "provider"
    assert shown["waiting_for"]["detail"] == "Connection refused by http://model:8000."
    assert shown["waiting_for"]["next_attempt_at"] > shown["created_at"]
    assert alice.get("/prompts/").json == [shown]
    assert bob.show(other)["waiting_for"] == shown["waiting_for"]
    end_pause(sessions)
    answered_by(worker, "the answer").process(1)
    assert alice.show(prompt_id)["waiting_for"] is bob.show(other)["waiting_for"] is None


def test_one_prompt_probes_the_provider_after_the_pause(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    for i in range(5):
        alice.submit(f"prompt {i}")
    answered_by(worker, UNAVAILABLE).process(1)
    end_pause(sessions)
    for probes in (1, 0):
        with sessions.begin() as session:
            assert worker_claims(worker, session) == probes


def worker_claims(worker: Pipeline, session: Session) -> int:
    return len(claims.claim(session, worker.route, 5, timedelta(minutes=1)).claims)


def test_workers_are_woken_up_for_all_waiting_prompts_when_the_probe_is_answered(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    ids = [alice.submit(f"prompt {i}") for i in range(5)]
    answered_by(worker, UNAVAILABLE).process(1)
    end_pause(sessions)
    probing = answered_by(worker, "the answer")
    probing.process(5)
    assert probing.queue.woken == [4]
    assert pause_seconds(sessions) is None
    for _ in ids[1:]:
        probing.process(1)
    assert {alice.show(prompt_id)["status"] for prompt_id in ids} == {"completed"}


def test_the_first_chunk_ends_the_pause(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    alice.submit()
    answered_by(worker, UNAVAILABLE).process(1)
    end_pause(sessions)
    pauses: list[float | None] = []
    probing = answered_by(worker, "")
    generator = Script("one two", between_chunks=lambda: pauses.append(pause_seconds(sessions)))
    dataclasses.replace(probing, generator=generator).process(1)
    assert pauses[-1] is None


def test_a_provider_that_rejects_a_prompt_is_available(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    alice.submit()
    answered_by(worker, UNAVAILABLE).process(1)
    end_pause(sessions)
    answered_by(worker, ProviderError("I will not.", retryable=False)).process(1)
    assert pause_seconds(sessions) is None


def test_a_probe_that_does_not_ask_the_provider_is_followed_by_another(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    first, second = alice.submit("first"), alice.submit("second")
    answered_by(worker, UNAVAILABLE).process(1)
    end_pause(sessions)

    class Stopping(Script):
        def generate(self, request: object) -> Iterator[str]:
            raise WorkerStopping

    probing = dataclasses.replace(answered_by(worker, ""), generator=Stopping())
    with pytest.raises(WorkerStopping):
        probing.process(1)
    assert pause_seconds(sessions) <= 0
    alice.post(f"/prompts/{first}/cancel/")
    answered_by(worker, "the answer").process(1)
    assert alice.show(second)["status"] == "completed"


def test_a_probe_whose_worker_died_is_followed_by_another(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    first = alice.submit("first")
    alice.submit("second")
    answered_by(worker, UNAVAILABLE).process(1)
    end_pause(sessions)
    with sessions.begin() as session:
        assert worker_claims(worker, session) == 1
    assert 50 <= pause_seconds(sessions) <= 60
    end_pause(sessions)
    answered_by(worker, "the answer").process(1)
    assert alice.show(first)["status"] == "completed"


def test_a_prompt_that_its_provider_always_refuses_does_not_hold_up_others(
    alice: ApiUser, bob: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    class Picky(Script):
        def generate(self, request: GenerationRequest) -> Iterator[str]:
            if request.prompt_text == "poison":
                raise UNAVAILABLE
            yield "the answer"

    refused = alice.submit("poison")
    ids = [bob.submit(f"prompt {i}") for i in range(5)]
    working = dataclasses.replace(answered_by(worker, ""), generator=Picky())
    for _ in range(10):
        working.process(1)
        end_pause(sessions)
    assert {bob.show(prompt_id)["status"] for prompt_id in ids} == {"completed"}
    assert alice.show(refused)["status"] == "queued"


def test_a_prompt_that_is_refused_beyond_its_patience_fails(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    prompt_id = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '2 h', attempt = 1"))
    refusing = answered_by(worker, UNAVAILABLE)
    for _ in range(5):
        refusing.process(1)
        with sessions.begin() as session:
            session.execute(text("DELETE FROM routes"))
            lifecycle.end_backoffs(session)
    assert alice.show(prompt_id)["status"] == "failed"


def test_an_empty_answer_ends_the_pause(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    class Empty(Script):
        def generate(self, request: object) -> Iterator[Usage]:
            yield Usage("model", 1, 0)

    alice.submit()
    answered_by(worker, UNAVAILABLE).process(1)
    end_pause(sessions)
    dataclasses.replace(answered_by(worker, ""), generator=Empty()).process(1)
    assert pause_seconds(sessions) is None


def test_a_probe_ends_only_its_own_pause(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    alice.submit()
    answered_by(worker, UNAVAILABLE).process(1)
    end_pause(sessions)

    class Late(Script):
        def generate(self, request: object) -> Iterator[str]:
            with sessions.begin() as session:
                hour = timedelta(hours=1)
                provider_pause.pause(session, worker.route, "busy", retry_after=hour, jitter=1, probe=None)
            yield "the answer"

    dataclasses.replace(answered_by(worker, ""), generator=Late()).process(1)
    assert pause_seconds(sessions) > 3_000


def test_a_claim_does_not_change_the_pause_of_another_worker(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    alice.submit()
    claimed = threading.Thread(target=lambda: claim_in_own_transaction(worker, sessions))
    with sessions.begin() as session:
        long = timedelta(seconds=600)
        provider_pause.pause(session, worker.route, "busy", retry_after=long, jitter=1, probe=None)
        claimed.start()  # it waits for the lane's row
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: worker.autocommit_engine.connect().scalar(text(waiting)), what="the claim waiting")
    claimed.join(MAX_WAIT_SECONDS)
    assert pause_seconds(sessions) > 500


def claim_in_own_transaction(worker: Pipeline, sessions: Sessions) -> None:
    with sessions.begin() as session:
        worker_claims(worker, session)


def test_the_reaper_wakes_up_a_worker_after_the_pause(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, reaper: Reaper, settings: Settings
) -> None:
    alice.submit()
    answered_by(worker, UNAVAILABLE).process(1)
    with make_redis(settings) as redis:
        redis.flushall()
        reaper.round()
        assert worker.queue.length() == 0
        end_pause(sessions)
        reaper.round()
        assert worker.queue.length() == 1


def test_a_prompt_fails_after_its_provider_was_unavailable_for_too_long(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, reaper: Reaper
) -> None:
    impatient, patient = alice.submit("impatient"), alice.submit("patient")
    answered_by(worker, UNAVAILABLE).process(1)
    with sessions.begin() as session:
        session.execute(text("UPDATE routes SET unavailable_since = now() - interval '2 h'"))
        session.execute(
            text("UPDATE prompts SET queued_at = now() - interval '61 min' WHERE id = :id"), {"id": impatient}
        )
    reaper.round()
    shown = alice.show(impatient)
    assert shown["status"] == "failed"
    assert "unavailable for 3600 seconds" in shown["error"]
    assert "Connection refused by http://model:8000." in shown["error"]
    assert alice.show(patient)["status"] == "queued"


def test_time_in_the_queue_does_not_count_as_patience(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, reaper: Reaper
) -> None:
    """Patience is time that the provider was unavailable, not time in the queue."""
    prompt_id = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET queued_at = now() - interval '1 day'"))
    answered_by(worker, UNAVAILABLE).process(1)
    reaper.round()
    assert alice.show(prompt_id)["status"] == "queued"


def test_the_refusal_of_a_group_counts_once(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    ids = [alice.submit(f"prompt {i}") for i in range(10)]
    group = answered_by(worker, UNAVAILABLE)
    group.generator.max_batch_size = 100
    group.process(len(ids))
    assert group.generator.calls == 1
    assert pause_seconds(sessions) <= 1.5
    assert {alice.show(prompt_id)["status"] for prompt_id in ids} == {"queued"}


def test_the_pause_doubles_up_to_a_limit_and_starts_over_after_an_answer(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    for i in range(2):
        alice.submit(f"{i}")
    for expected in (1, 2, 4, 8, 16, 30, 30):
        began = database_time(sessions)
        answered_by(worker, UNAVAILABLE).process(1)
        assert 0.9 * expected <= pause_seconds(sessions, began)
        assert pause_seconds(sessions) <= 1.5 * expected
        end_pause(sessions)
    answered_by(worker, "the answer").process(1)
    answered_by(worker, UNAVAILABLE).process(1)
    assert pause_seconds(sessions) <= 1.5


@pytest.mark.parametrize(("asked", "seconds"), [(20.0, 20), (0.0, 1), (10**9, 3_600)])
def test_the_pause_follows_retry_after_within_its_limits(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, asked: float, seconds: float
) -> None:
    alice.submit()
    began = database_time(sessions)
    answered_by(worker, ProviderUnavailableError("later", retry_after=asked)).process(1)
    assert 0.9 * seconds <= pause_seconds(sessions, began)
    assert pause_seconds(sessions) <= 1.5 * seconds


def test_prompts_that_are_refused_at_the_same_time_count_once(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    for _ in range(20):
        with sessions.begin() as session:
            provider_pause.pause(session, worker.route, "busy", retry_after=None, jitter=1, probe=None)
    assert pause_seconds(sessions) <= 2
