"""USER_BACKLOG_LIMIT and USER_RUNNING_LIMIT bound what one user has queued and running."""

import dataclasses
import threading
from collections import deque

from sqlalchemy import text

from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE, Priority
from shared.prompts import scheduling, submission
from shared.prompts.submission import PromptLimits
from tests.support import lifecycle
from tests.support.client import ApiUser, assert_problem
from tests.support.lifecycle import MINUTE
from tests.support.servers import MAX_WAIT_SECONDS
from tests.support.user_queue import UserQueue
from worker.pipeline import Pipeline


def grant(session, user_id: int) -> dict[str, int]:
    return dict(scheduling.grant_turns(session, [user_id], grace=MINUTE, running_limit=2))


def test_a_user_over_the_backlog_limit_is_refused_and_another_user_is_not(make_app) -> None:
    app, _ = make_app(user_backlog_limit=2)
    alice, bob = ApiUser(app, "alice"), ApiUser(app, "bob")
    ids = [alice.submit(f"{i}") for i in range(2)]
    response = alice.post("/prompts/", json={"prompt_text": "one too many"})
    assert_problem(response, 429)
    assert response.json["type"].endswith("/user-limit")
    assert "2 unfinished prompts" in response.json["detail"]
    assert int(response.headers["Retry-After"]) >= 1
    assert bob.submit()
    alice.post(f"/prompts/{ids[0]}/cancel/")
    assert alice.submit()


def test_the_backlog_limit_is_exact_within_a_group(queue: UserQueue) -> None:
    stored = queue.submit(*"aaab", limits=PromptLimits(backlog=2))
    assert [each is not None for each in stored] == [True, True, False, True]


def test_the_backlog_limit_is_exact_when_groups_come_at_the_same_time(queue: UserQueue, sessions: Sessions) -> None:
    queue.user("a")
    stored: deque[int | None] = deque()
    threads = [
        threading.Thread(target=lambda: stored.extend(queue.submit(*"aaa", limits=PromptLimits(backlog=5))))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MAX_WAIT_SECONDS)
    assert sum(each is not None for each in stored) == 5
    with sessions() as session:
        turns = session.scalars(text("SELECT turn FROM prompts")).all()
    assert len(set(turns)) == 5


def test_a_retry_counts_against_every_limit(make_app) -> None:
    app, _ = make_app(user_backlog_limit=2, prompt_rate_limit="4/minute")
    alice = ApiUser(app, "alice")
    first = alice.submit()
    alice.post(f"/prompts/{first}/cancel/")
    ids = [alice.submit(f"{i}") for i in range(2)]
    response = alice.post(f"/prompts/{first}/retry/")
    assert_problem(response, 429)
    assert response.json["type"].endswith("/user-limit")
    alice.post(f"/prompts/{ids[0]}/cancel/")
    response = alice.post(f"/prompts/{first}/retry/")
    assert_problem(response, 429)
    assert "RateLimit" in response.headers
    assert alice.show(first)["status"] == "cancelled"


def test_a_retry_is_refused_while_the_service_is_overloaded(make_app) -> None:
    alice = ApiUser(make_app(backlog_limit=1)[0], "alice")
    first = alice.submit()
    alice.post(f"/prompts/{first}/cancel/")
    alice.submit()
    assert_problem(alice.post(f"/prompts/{first}/retry/"), 503)


def test_no_more_of_a_users_prompts_run_than_the_running_limit(queue: UserQueue, sessions: Sessions) -> None:
    limits = PromptLimits(running=2)
    queue.submit(*"aaaa", limits=limits)
    queue.submit("b", limits=limits)
    assert sorted(queue.claim(10)) == ["a", "a", "b"]
    assert queue.claim() == []
    user_id = queue.user("a")
    with sessions.begin() as session:
        assert grant(session, user_id) == {}
        submission.cancel(session, user_id, session.scalar(text("SELECT min(id) FROM prompts")))
        assert grant(session, user_id) == {DEFAULT_ROUTE: 1}
    assert queue.claim(10) == ["a"]
    assert queue.claim() == []


def test_a_users_low_prompts_wait_for_the_default_ones(queue: UserQueue, sessions: Sessions) -> None:
    limits = PromptLimits(running=1)
    queue.submit(*"lll", priority=Priority.LOW, limits=limits)
    queue.submit("l", limits=limits)
    user_id = queue.user("l")
    with sessions.begin() as session:
        submission.cancel(session, user_id, session.scalar(text("SELECT min(id) FROM prompts")))
        scheduling.grant_turns(session, [user_id], grace=MINUTE, running_limit=1)
        granted = session.scalars(text("SELECT priority FROM prompts WHERE turn IS NOT NULL")).all()
    assert granted == ["default"]


def test_a_worker_gives_the_next_turn_when_a_prompt_ends(make_app, worker: Pipeline) -> None:
    alice = ApiUser(make_app(user_running_limit=1)[0], "alice")
    ids = [alice.submit(f"{i}") for i in range(3)]
    assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [1, None, None]
    limited = dataclasses.replace(worker, running_limit=1, queue=lifecycle.RecordingQueue())
    limited.process(10)
    assert limited.queue.woken == [1]
    assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [None, 1, None]


def test_a_cancelled_or_deleted_prompt_gives_its_turn_to_the_next(make_app) -> None:
    alice = ApiUser(make_app(user_running_limit=1)[0], "alice")
    ids = [alice.submit(f"{i}") for i in range(3)]
    alice.post(f"/prompts/{ids[0]}/cancel/")
    assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [None, 1, None]
    alice.delete(f"/prompts/{ids[1]}/")
    assert alice.show(ids[2])["position"] == 1
