"""The worker's pipeline: from a claim to an announcement, also with generators that misbehave."""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from redis import Redis
from sqlalchemy import text
from structlog.testing import capture_logs

from shared.db.engine import Sessions
from shared.errors import ProviderError
from shared.messaging.channels import Channels
from shared.messaging.redis import make_redis
from shared.prompts import overdue
from shared.providers import GenerationRequest, Usage
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import ApiUser
from tests.support.providers import Script
from tests.support.servers import wait_until
from tests.support.worker_threads import MemoryQueue
from worker.deltas import FIRST_DELTA_SECONDS
from worker.leases import Leases, WorkerStopping
from worker.pipeline import Pipeline


def with_generator(worker: Pipeline, *steps: str | Exception, **kwargs) -> Pipeline:
    return dataclasses.replace(worker, generator=Script(*steps, **kwargs))


def end_backoffs(sessions: Sessions) -> None:
    with sessions.begin() as session:
        lifecycle.end_backoffs(session)


@pytest.fixture
def announced(settings: Settings, alice: ApiUser):
    """Return a function that returns all announcements to alice so far."""
    redis: Redis = make_redis(settings)
    with redis, redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(Channels(redis).of_user(alice.id))
        pubsub.get_message(timeout=5)
        seen: list[dict] = []

        def listen() -> list[dict]:
            while message := pubsub.get_message(timeout=0.2):
                seen.append(json.loads(message["data"]))
            return seen

        yield listen


def wait_past_patience() -> None:
    """Sleep longer than the pipeline waits for a whole answer before it sends partial text."""
    time.sleep(2 * FIRST_DELTA_SECONDS)


def test_a_prompt_is_answered_embedded_and_announced(alice: ApiUser, worker: Pipeline, announced) -> None:
    prompt_id = alice.submit("Hello there", websocket=True)
    with_generator(worker, "an answer of several words", between_chunks=wait_past_patience).process(1)
    *deltas, ended = announced()
    assert len(deltas) > 1
    assert ended["seq"] == 1
    event = json.loads(ended["message"])
    shown = alice.show(prompt_id)
    assert event == {
        "type": "prompt.completed",
        "seq": 1,
        "id": prompt_id,
        "user": "alice",
        "prompt_text": "Hello there",
        "response_text": shown["response_text"],
        "metadata": {},
        "model": "default",
        "provider_model": None,
        "usage": None,
        "finish_reason": None,
        "tool_calls": None,
        "cached_from": None,
        "status": "completed",
        "created_at": shown["created_at"],
        "completed_at": event["completed_at"],
        "timestamp": event["timestamp"],
        "request_id": event["request_id"],
    }
    texts = [json.loads(delta["message"]) for delta in deltas]
    assert "".join(delta["text"] for delta in texts) == shown["response_text"]
    assert [delta["index"] for delta in texts] == list(range(len(texts)))
    assert {(delta["type"], delta["id"], delta["attempt"]) for delta in texts} == {("prompt.delta", prompt_id, 1)}


def test_a_chunk_is_sent_as_a_delta_although_no_other_chunk_follows(
    alice: ApiUser, worker: Pipeline, announced
) -> None:
    alice.submit(websocket=True)
    sent: list[dict] = []

    def wait_for_delta() -> None:
        if not sent:
            wait_until(lambda: sent.extend(announced()) or sent, 5, "a delta")

    with_generator(worker, "one two", between_chunks=wait_for_delta).process(1)
    assert json.loads(sent[0]["message"])["text"] == "one "


def test_an_immediate_answer_has_no_deltas(alice: ApiUser, worker: Pipeline, announced) -> None:
    alice.submit("Hello there", websocket=True)
    worker.process(1)
    (ended,) = announced()
    assert json.loads(ended["message"])["response_text"].startswith("Hello!")


def test_an_event_carries_the_request_id_of_its_submission(alice: ApiUser, worker: Pipeline, announced) -> None:
    body = {"prompt_text": "Hi", "websocket": True}
    alice.post("/prompts/", json=body, headers={"X-Request-ID": "req-7"})
    worker.process(1)
    assert json.loads(announced()[-1]["message"])["request_id"] == "req-7"


def test_without_websocket_only_the_number_is_announced(alice: ApiUser, worker: Pipeline, announced) -> None:
    prompt_id = alice.submit("Hello", websocket=False)
    worker.process(1)
    assert announced() == [{"seq": 1, "prompt_id": prompt_id, "attempt": 1, "message": None}]


def test_several_prompts_in_one_message_are_all_answered(alice: ApiUser, worker: Pipeline) -> None:
    ids = [alice.submit(f"prompt {i}") for i in range(5)]
    worker.process(len(ids))
    assert all(alice.show(i)["status"] == "completed" for i in ids)


def test_a_redelivered_message_is_answered_once(alice: ApiUser, worker: Pipeline, announced) -> None:
    prompt_id = alice.submit(websocket=True)
    worker.process(1)
    worker.process(1)
    assert [message["seq"] for message in announced() if message["seq"]] == [1]
    assert alice.show(prompt_id)["attempt"] == 1


def test_a_failed_attempt_is_retried_after_a_pause(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    worker = with_generator(worker, ProviderError("unavailable"), "the answer")
    prompt_id = alice.submit()
    worker.process(1)
    assert (alice.show(prompt_id)["status"], alice.show(prompt_id)["error"]) == ("queued", None)
    worker.process(1)  # too early: a redelivered message does not shorten the pause
    assert alice.show(prompt_id)["attempt"] == 1
    end_backoffs(sessions)
    worker.process(1)
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["attempt"], shown["response_text"]) == ("completed", 2, "the answer ")


def test_pauses_between_attempts_grow_up_to_a_limit(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    worker = dataclasses.replace(
        with_generator(worker, ProviderError("unavailable")), retry_backoff=timedelta(seconds=100)
    )
    prompt_id = alice.submit()
    for low, high in ((50, 100), (100, 200), (150, 300), (150, 300)):
        worker.process(1)
        with sessions() as session:
            pause = session.scalar(text("SELECT extract(epoch FROM due_at - now()) FROM prompts"))
        assert low - 5 <= pause <= high
        end_backoffs(sessions)
    worker.process(1)
    assert alice.show(prompt_id)["status"] == "failed"


def test_a_prompt_fails_after_five_attempts_and_its_failure_is_announced(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, announced
) -> None:
    worker = with_generator(worker, ProviderError("The provider is unavailable."))
    prompt_id = alice.submit(websocket=True)
    for _ in range(7):
        worker.process(1)
        end_backoffs(sessions)
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["attempt"], shown["error"]) == ("failed", 5, "The provider is unavailable.")
    (ended,) = announced()
    event = json.loads(ended["message"])
    assert (event["type"], event["error"], event["response_text"]) == (
        "prompt.failed",
        "The provider is unavailable.",
        None,
    )


def test_a_permanent_error_fails_the_prompt_without_a_retry(alice: ApiUser, worker: Pipeline) -> None:
    prompt_id = alice.submit()
    with_generator(worker, ProviderError("No such model.", retryable=False)).process(1)
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["attempt"], shown["error"]) == ("failed", 1, "No such model.")


def test_the_log_has_the_reason_of_a_failed_attempt_but_not_the_providers_words(
    alice: ApiUser, worker: Pipeline
) -> None:
    """Those may quote the prompt."""
    alice.submit("zebra")
    error = ProviderError("The provider at http://model:1 refused the key (401): No zebra.", retryable=False)
    with capture_logs() as logs:
        with_generator(worker, error).process(1)
    (failed,) = (line for line in logs if line["event"] == "attempt failed")
    assert failed["detail"] == "The provider at http://model:1 refused the key (401)"
    assert "zebra" not in str(logs)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("key sk-123"), "The generation failed (ValueError)."),
        (SoftTimeLimitExceeded(), "The generation took longer than 90 seconds (GENERATION_TIMEOUT_SECONDS)."),
    ],
)
def test_an_unexpected_error_is_shown_without_its_details(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, error: Exception, message: str
) -> None:
    prompt_id = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET attempt_limit = 1"))
    with_generator(dataclasses.replace(worker, time_limit=timedelta(seconds=90)), error).process(1)
    assert (alice.show(prompt_id)["status"], alice.show(prompt_id)["error"]) == ("failed", message)


def test_characters_that_postgres_cannot_store_are_replaced(alice: ApiUser, worker: Pipeline, announced) -> None:
    prompt_id = alice.submit(websocket=True)
    with_generator(worker, "nul:\0 surrogate:\ud800", between_chunks=wait_past_patience).process(1)
    assert alice.show(prompt_id)["response_text"] == "nul:\ufffd surrogate:? "
    assert len(announced()) > 1


@pytest.mark.parametrize("signal", [WorkerStopping, SoftTimeLimitExceeded])
def test_a_generation_that_exceeds_its_time_limit_uses_up_an_attempt(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, signal: type[BaseException]
) -> None:
    """A generator that ignores the interruption is killed; it must not be retried forever."""

    class Stubborn:
        name, max_batch_size = "stubborn", 1

        def generate(self, request: GenerationRequest) -> Iterator[str]:
            yield "beginning"
            raise signal

    prompt_id = alice.submit()
    stubborn = dataclasses.replace(worker, generator=Stubborn(), time_limit=timedelta(0), retry_backoff=timedelta(0))
    for attempt in range(1, 6):
        assert alice.show(prompt_id)["status"] == "queued"
        with contextlib.suppress(WorkerStopping):
            stubborn.process(1)
        assert alice.show(prompt_id)["attempt"] == attempt
        end_backoffs(sessions)
    assert alice.show(prompt_id)["error"] == "The generation took longer than 0 seconds (GENERATION_TIMEOUT_SECONDS)."


@pytest.mark.parametrize(
    ("reported", "shown"),
    [
        (Usage("m\0", 1, 2), ("m\ufffd", {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})),
        (Usage("m" * 500, 1, None), ("m" * 200, None)),
        (Usage(7, "1", -1), (None, None)),  # type: ignore[arg-type]
        (Usage("m", 10**20, 1.5), ("m", None)),  # type: ignore[arg-type]
        (Usage("m", finish_reason="max_tokens"), ("m", None)),
        (Usage("m", finish_reason=["stop"]), ("m", None)),  # type: ignore[arg-type]
    ],
)
def test_invalid_usage_reported_by_a_provider_does_not_spoil_its_answer(
    alice: ApiUser, worker: Pipeline, reported: Usage, shown: object
) -> None:
    class Reporting:
        name, max_batch_size = "reporting", 1

        def generate(self, request: GenerationRequest) -> Iterator[str | Usage]:
            yield "the answer"
            yield reported

    prompt_id = alice.submit()
    dataclasses.replace(worker, generator=Reporting()).process(1)
    prompt = alice.show(prompt_id)
    assert (prompt["status"], (prompt["provider_model"], prompt["usage"])) == ("completed", shown)
    assert prompt["finish_reason"] is None


def test_a_prompt_cancelled_during_its_generation_is_never_completed(alice: ApiUser, worker: Pipeline) -> None:
    prompt_id = alice.submit()
    cancelled = []

    def cancel() -> None:
        if not cancelled:
            cancelled.append(alice.post(f"/prompts/{prompt_id}/cancel/").status_code)

    with_generator(worker, "far too late", between_chunks=cancel).process(1)
    assert cancelled == [200]
    shown = alice.show(prompt_id)
    assert (shown["status"], shown["response_text"]) == ("cancelled", None)
    assert alice.get("/prompts/similar/?prompt=late").json == []


def test_a_running_generation_stops_when_its_lease_is_renewed_after_a_cancel(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    lease = timedelta(seconds=0.3)
    chunks = []

    def between() -> None:
        chunks.append(1)
        if len(chunks) == 1:
            alice.post(f"/prompts/{prompt_id}/cancel/")
        time.sleep(0.05)

    generator = Script(" ".join("word" for _ in range(200)), between_chunks=between)
    worker = dataclasses.replace(worker, lease=lease, leases=Leases(sessions, lease), generator=generator)
    prompt_id = alice.submit()
    worker.process(1)
    assert len(chunks) < 100


def test_a_worker_that_is_stopping_claims_nothing_and_wakes_up_another(
    alice: ApiUser, worker: Pipeline, sessions: Sessions
) -> None:
    queue = MemoryQueue()
    worker = dataclasses.replace(worker, leases=Leases(sessions, worker.lease), queue=queue)
    prompt_id = alice.submit()
    worker.leases.stop()
    assert worker.process(1) == ([], [])
    assert (alice.show(prompt_id)["attempt"], queue.messages.get_nowait()) == (0, 1)


def test_a_lease_is_renewed_during_a_generation(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> None:
    lease = timedelta(seconds=0.4)
    reaped = []

    def between() -> None:
        time.sleep(0.3)
        with sessions.begin() as session:
            reaped.append(overdue.queue_lapsed(session, grace=lease, limit=10))

    generator = Script("one two three four", between_chunks=between)
    worker = dataclasses.replace(worker, lease=lease, leases=Leases(sessions, lease), generator=generator)
    prompt_id = alice.submit()
    worker.process(1)
    assert reaped
    assert not any(reaped)
    assert alice.show(prompt_id)["status"] == "completed"


def test_a_prompt_is_answered_while_redis_is_unavailable(alice: ApiUser, settings: Settings, worker: Pipeline) -> None:
    from shared.messaging.announcements import Announcer
    from shared.messaging.redis import make_redis
    from tests.support.servers import make_settings

    nowhere = make_settings()
    worker = dataclasses.replace(worker, announcer=Announcer(make_redis(nowhere)))
    prompt_id = alice.submit(websocket=True)
    worker.process(1)
    assert alice.show(prompt_id)["status"] == "completed"
