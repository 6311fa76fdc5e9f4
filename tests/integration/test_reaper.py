"""The reaper: it enqueues overdue prompts again, fails those out of attempts, and purges expired rows."""

import base64
import json

import pytest
from redis import Redis
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.messaging.announcements import Announcer
from shared.messaging.queue import QUEUE, Queue, make_celery
from shared.messaging.redis import make_redis
from shared.settings import Settings
from tests.support.client import ApiUser
from worker.maintenance.cleaner import Cleaner
from worker.maintenance.reaper import MAX_PROMPTS_PER_ROUND, Reaper
from worker.pipeline import Pipeline


@pytest.fixture
def redis(settings: Settings):
    with make_redis(settings) as client:
        yield client


@pytest.fixture
def reaper(settings: Settings, sessions: Sessions, redis: Redis) -> Reaper:
    return Reaper(settings, sessions, Queue(make_celery(settings), redis), Announcer(redis))


def queued(redis: Redis) -> list[list[int]]:
    """Take all messages off the queue, and return the ids in each, oldest first."""
    messages = [json.loads(m) for m in redis.lrange(QUEUE, 0, -1)[::-1]]
    redis.delete(QUEUE)
    return [json.loads(base64.b64decode(message["body"]))[0][0] for message in messages]


def make_overdue(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET due_at = now() - interval '1 s' WHERE due_at IS NOT NULL"))


def test_a_lost_message_is_sent_again(alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions) -> None:
    ids = [alice.submit(f"{i}") for i in range(3)]
    assert queued(redis) == [[i] for i in ids]
    reaper.round()
    assert queued(redis) == []
    make_overdue(sessions)
    reaper.round()
    assert queued(redis) == [[i] for i in ids]
    reaper.round()
    assert queued(redis) == []


def test_a_lost_prompt_does_not_wait_for_its_grace_period_while_the_queue_is_empty(
    alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions, settings: Settings
) -> None:
    def set_enqueued(seconds_ago: float) -> None:
        with sessions.begin() as session:
            due = text("UPDATE prompts SET due_at = now() + make_interval(0, 0, 0, 0, 0, 0, :seconds)")
            session.execute(due, {"seconds": settings.submit_grace_seconds - seconds_ago})

    lost, on_its_way = alice.submit("lost"), alice.submit("on its way")
    set_enqueued(settings.reaper_seconds + 1)
    reaper.round()
    assert queued(redis) == [[lost], [on_its_way]]
    set_enqueued(settings.reaper_seconds + 1)
    reaper.round()
    assert queued(redis) == [[lost], [on_its_way]]
    set_enqueued(0)
    reaper.round()
    assert queued(redis) == []


def test_a_prompt_in_its_backoff_is_not_enqueued_while_the_queue_is_empty(
    alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions
) -> None:
    alice.submit()
    queued(redis)
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET due_at = now() + interval '1 s', not_before = now() + interval '1 s'"))
    reaper.round()
    assert queued(redis) == []


def test_the_prompt_of_a_dead_worker_is_enqueued_again(
    alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions, worker: Pipeline
) -> None:
    prompt_id = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET status = 'processing', attempt = 1"))
    make_overdue(sessions)
    queued(redis)
    reaper.round()
    assert queued(redis) == [[prompt_id]]
    worker.process([prompt_id])
    assert (alice.show(prompt_id)["status"], alice.show(prompt_id)["attempt"]) == ("completed", 2)


def test_a_prompt_out_of_attempts_fails(alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions) -> None:
    prompt_id = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET status = 'processing', attempt = attempt_limit"))
    make_overdue(sessions)
    queued(redis)
    reaper.round()
    shown = alice.show(prompt_id)
    assert shown["status"] == "failed"
    assert "Gave up" in shown["error"]
    assert queued(redis) == []


def test_the_reaper_adds_nothing_to_a_long_queue(
    alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions
) -> None:
    alice.submit()
    make_overdue(sessions)
    redis.delete(QUEUE)
    redis.rpush(QUEUE, *["{}"] * MAX_PROMPTS_PER_ROUND)
    reaper.round()
    assert redis.llen(QUEUE) == MAX_PROMPTS_PER_ROUND


def test_expired_feed_entries_and_logins_are_purged(alice: ApiUser, settings: Settings, sessions: Sessions) -> None:
    alice.post(f"/prompts/{alice.submit()}/cancel/")
    with sessions.begin() as session:
        session.execute(text("UPDATE feed SET at = now() - interval '31 days'"))
        session.execute(text("UPDATE token_families SET expires_at = now() - interval '1 s'"))
    Cleaner(settings, sessions).round()
    with sessions() as session:
        assert session.scalar(text("SELECT count(*) FROM feed")) == 0
        assert session.scalar(text("SELECT count(*) FROM token_families")) == 0
