"""The reaper: it queues prompts of lapsed leases, replaces lost messages, fails prompts, and purges expired rows."""

import base64
import dataclasses
import json
from datetime import timedelta

import pytest
from redis import Redis
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE
from shared.errors import ProviderError
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue, make_celery, queue_name
from shared.messaging.redis import make_redis
from shared.prompts import overdue, scheduling
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import ApiUser
from tests.support.providers import Script
from worker.maintenance.cleaner import Cleaner
from worker.maintenance.reaper import Reaper
from worker.pipeline import Pipeline


@pytest.fixture
def redis(settings: Settings):
    with make_redis(settings) as client:
        yield client


@pytest.fixture
def reaper(settings: Settings, sessions: Sessions, redis: Redis) -> Reaper:
    return Reaper(settings, sessions, Queue(make_celery(settings), redis), Announcer(redis))


def woken(redis: Redis) -> list[int]:
    """Take all messages off the queue, and return for how many prompts each is, oldest first."""
    name = queue_name(DEFAULT_ROUTE)
    messages = [json.loads(m) for m in redis.lrange(name, 0, -1)[::-1]]
    redis.delete(name)
    return [json.loads(base64.b64decode(message["body"]))[0][1] for message in messages]


def let_leases_lapse(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET due_at = now() - interval '1 s' WHERE status = 'processing'"))


def test_one_message_replaces_all_that_were_lost(alice: ApiUser, reaper: Reaper, redis: Redis) -> None:
    for i in range(3):
        alice.submit(f"{i}")
    assert woken(redis) == [1, 1, 1]
    reaper.round()
    assert woken(redis) == [3]


def test_the_reaper_sends_nothing_while_a_message_waits_or_no_prompt_does(
    alice: ApiUser, reaper: Reaper, redis: Redis
) -> None:
    reaper.round()
    assert woken(redis) == []
    alice.submit()
    reaper.round()
    assert woken(redis) == [1]


def test_a_prompt_gets_its_turn_after_its_backoff(
    alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions, worker: Pipeline
) -> None:
    prompt_id = alice.submit()
    dataclasses.replace(worker, generator=Script(ProviderError("no"))).process(1)
    woken(redis)
    reaper.round()
    assert (woken(redis), alice.show(prompt_id)["position"]) == ([], None)
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET not_before = now()"))
    reaper.round()
    assert (woken(redis), alice.show(prompt_id)["position"]) == ([1], 1)


def test_the_prompt_of_a_dead_worker_is_queued_again(
    alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions, worker: Pipeline
) -> None:
    prompt_id = alice.submit()
    with sessions.begin() as session:
        lifecycle.claim(session, prompt_id)
    let_leases_lapse(sessions)
    woken(redis)
    reaper.round()
    assert woken(redis) == [1]
    worker.process(1)
    assert (alice.show(prompt_id)["status"], alice.show(prompt_id)["attempt"]) == ("completed", 2)


def test_a_user_whose_lock_is_held_does_not_keep_the_reaper_from_others(
    alice: ApiUser, bob: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions
) -> None:
    stuck, free = alice.submit(), bob.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET turn = NULL"))
    with sessions.begin() as holding:
        scheduling.lock_users(holding, [alice.id])
        reaper.round()
    assert (alice.show(stuck)["position"], bob.show(free)["position"]) == (None, 1)
    reaper.round()
    assert alice.show(stuck)["position"] is not None


def test_the_reaper_does_its_other_steps_although_one_fails(
    alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt_id = alice.submit()
    with sessions.begin() as session:
        lifecycle.claim(session, prompt_id, lease=timedelta(seconds=-1))

    def fail(*_: object, **__: object) -> None:
        raise OperationalError("", {}, Exception())

    monkeypatch.setattr(overdue, "exhausted", fail)
    reaper.round()
    assert alice.show(prompt_id)["status"] == "queued"


def test_prompts_of_the_release_before_the_fair_queue_get_turns(
    alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions, worker: Pipeline
) -> None:
    ids = [alice.submit(f"{i}") for i in range(3)]
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET turn = NULL"))
    woken(redis)
    reaper.round()
    assert woken(redis) == [3]
    worker.process(3)
    assert [alice.show(prompt_id)["status"] for prompt_id in ids] == ["completed"] * 3


def test_a_prompt_out_of_attempts_fails(alice: ApiUser, reaper: Reaper, redis: Redis, sessions: Sessions) -> None:
    prompt_id = alice.submit()
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET status = 'processing', attempt = attempt_limit"))
    let_leases_lapse(sessions)
    woken(redis)
    reaper.round()
    shown = alice.show(prompt_id)
    assert shown["status"] == "failed"
    assert "Gave up" in shown["error"]
    assert woken(redis) == []


def test_expired_feed_entries_and_logins_are_purged(alice: ApiUser, settings: Settings, sessions: Sessions) -> None:
    alice.post(f"/prompts/{alice.submit()}/cancel/")
    with sessions.begin() as session:
        session.execute(text("UPDATE feed SET at = now() - interval '31 days'"))
        session.execute(text("UPDATE token_families SET expires_at = now() - interval '1 s'"))
    Cleaner(settings, sessions).round()
    with sessions() as session:
        assert session.scalar(text("SELECT count(*) FROM feed")) == 0
        assert session.scalar(text("SELECT count(*) FROM token_families")) == 0
