"""Low priority comes after all other prompts, and gets its share of the work."""

from collections import Counter

import pytest

from shared.db.engine import Sessions
from shared.db.models import Priority
from shared.prompts import claims
from tests.support import lifecycle
from tests.support.client import ApiUser, assert_problem
from tests.support.lifecycle import MINUTE
from tests.support.user_queue import UserQueue
from worker import pipeline
from worker.pipeline import Pipeline


def test_low_priority_comes_after_all_other_prompts(queue: UserQueue) -> None:
    queue.submit("l", priority=Priority.LOW)
    queue.submit(*"aaa")
    assert queue.claim_all() == "aaal"


def test_low_priority_gets_its_share_of_a_claim(queue: UserQueue) -> None:
    queue.submit(*"l" * 5, priority=Priority.LOW)
    queue.submit(*"a" * 20)
    assert Counter(queue.claim(10, low_share=1)) == {"a": 9, "l": 1}


def test_each_priority_takes_what_the_other_leaves(queue: UserQueue) -> None:
    queue.submit(*"l" * 5, priority=Priority.LOW)
    queue.submit(*"aa")
    assert Counter(queue.claim(5, low_share=1)) == {"a": 2, "l": 3}
    queue.submit(*"aaaa")
    assert Counter(queue.claim(6, low_share=3)) == {"a": 4, "l": 2}


def test_a_claim_has_few_prompts_of_low_priority(queue: UserQueue) -> None:
    queue.submit(*"l" * 10, priority=Priority.LOW)
    queue.submit(*"aa")
    assert Counter(queue.claim(10, low_share=5, low_limit=3)) == {"a": 2, "l": 3}
    assert Counter(queue.claim(10, low_limit=3)) == {"l": 3}


def test_attempted_low_prompts_do_not_go_before_default_ones(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"ll", priority=Priority.LOW)
    with sessions.begin() as session:
        claims.release(session, lifecycle.claim_any(session, 2, low_share=2), grace=MINUTE)
    queue.submit(*"aaa")
    assert queue.claim(20, low_share=2) == ["a", "a", "a"]
    assert queue.claim(20, low_share=2) == ["l"]


def test_workers_give_low_priority_a_tenth_on_average(
    queue: UserQueue, worker: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares = {size: [] for size in (1, 15, 100)}
    for i in range(1_000):
        monkeypatch.setattr(pipeline.random, "random", lambda i=i: i / 1_000)
        for size, seen in shares.items():
            seen.append(pipeline._low_share(size))
    assert {size: sum(seen) / len(seen) for size, seen in shares.items()} == {
        size: pytest.approx(size / 10, abs=0.01) for size in shares
    }


def test_a_prompt_of_low_priority_shows_its_priority_and_its_position(alice: ApiUser, bob: ApiUser) -> None:
    response = alice.post("/prompts/", json={"prompt_text": "later", "priority": "low"})
    assert (response.json["priority"], response.json["position"]) == ("low", 1)
    ids = [bob.submit("a"), bob.submit("b")]
    assert [bob.show(prompt_id)["position"] for prompt_id in ids] == [1, 2]
    assert alice.show(response.json["id"])["position"] == 3


def test_an_unknown_priority_is_refused(alice: ApiUser) -> None:
    assert_problem(alice.post("/prompts/", json={"prompt_text": "Hi", "priority": "high"}), 400)


def test_the_default_priority_is_the_same_body_for_an_idempotency_key(alice: ApiUser) -> None:
    """Keys of the release before the fair queue stay valid."""
    headers = {"Idempotency-Key": "k"}
    first = alice.post("/prompts/", json={"prompt_text": "Hi"}, headers=headers)
    for body in ({"prompt_text": "Hi", "priority": "default"}, {"prompt_text": "Hi", "priority": None}):
        assert alice.post("/prompts/", json=body, headers=headers).json["id"] == first.json["id"]
    assert_problem(alice.post("/prompts/", json={"prompt_text": "Hi", "priority": "low"}, headers=headers), 422)
