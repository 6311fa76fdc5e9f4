"""The fair queue: users take turns, however many prompts each has submitted."""

import itertools
from collections import Counter
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE
from shared.prompts import claims, overdue, submission
from shared.prompts.claim_statements import CLAIM, CLAIM_WITHIN_LIMIT
from tests.support import lifecycle
from tests.support.lifecycle import MINUTE
from tests.support.user_queue import UserQueue


def test_a_user_with_one_prompt_passes_a_user_with_many(queue: UserQueue) -> None:
    queue.submit(*"aaaa")
    queue.submit("b")
    assert queue.claim_all() == "abaaa"


def test_users_with_many_prompts_take_turns(queue: UserQueue) -> None:
    queue.submit(*"aaa")
    queue.submit(*"bbb")
    queue.submit(*"ccc")
    taken = queue.claim_all()
    assert Counter(taken) == {"a": 3, "b": 3, "c": 3}
    for start in (0, 3, 6):
        assert set(taken[start : start + 3]) == {"a", "b", "c"}


def test_the_prompts_of_one_user_keep_their_order(queue: UserQueue, sessions: Sessions) -> None:
    ids = [*queue.submit(*"aa"), *queue.submit("a"), *queue.submit(*"aa")]
    with sessions.begin() as session:
        claimed = claims.claim(session, DEFAULT_ROUTE, 10, MINUTE).claims
    assert [claim.id for claim in claimed] == ids


def test_a_group_of_several_users_gives_each_a_first_turn(queue: UserQueue) -> None:
    queue.submit(*"aaabbc")
    assert set(queue.claim_all()[:3]) == {"a", "b", "c"}


def test_a_newcomer_starts_after_at_most_one_prompt_of_each_waiting_user(queue: UserQueue) -> None:
    for name in "abcdefghij":
        queue.submit(*name * 20)
    for _ in range(37):
        queue.claim()
    queue.submit("z")
    before = list(itertools.takewhile(lambda names: names != ["z"], iter(queue.claim, [])))
    counts = Counter(name for names in before for name in names)
    assert len(before) <= 10
    assert max(counts.values(), default=0) <= 1


def test_a_user_with_many_prompts_keeps_an_equal_share_beside_users_who_resubmit_at_once(queue: UserQueue) -> None:
    """Each claim is answered at once, and a resubmitting user then submits the next prompt."""
    queue.submit(*"m" * 100)
    queue.submit(*"abcdefghijklmnopqrst"[:9])
    taken = Counter()
    for _ in range(600):
        (name,) = queue.claim()
        taken[name] += 1
        queue.submit(name)
    assert len(taken) == 10
    assert all(abs(count - 60) <= 6 for count in taken.values()), taken


def test_a_user_with_many_retries_goes_no_faster(queue: UserQueue, sessions: Sessions) -> None:
    ids = queue.submit(*"aaaa")
    user_id = queue.user("a")
    with sessions.begin() as session:
        for prompt_id in ids:
            submission.cancel(session, user_id, prompt_id)
    queue.submit("b", "b")
    for prompt_id in ids:
        with sessions.begin() as session:
            submission.retry(session, user_id, prompt_id, grace=MINUTE, attempts=5)
    taken = "".join(claim.request_id for claim in claim_each(sessions))
    assert taken[:4] in ("baba", "abab", "baab", "abba")


def claim_each(sessions: Sessions) -> list[claims.Claim]:
    taken = []
    while True:
        with sessions.begin() as session:
            claimed = lifecycle.claim_any(session)
        if not claimed:
            return taken
        taken += claimed


def test_a_released_prompt_keeps_its_turn(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"aaa")
    with sessions.begin() as session:
        claimed = lifecycle.claim_any(session)
    queue.submit("b")
    with sessions.begin() as session:
        claims.release(session, claimed, grace=MINUTE)
    assert queue.claim_all() == "abaa"


def test_a_prompt_whose_worker_died_keeps_its_turn(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"aaa")
    queue.claim(lease=timedelta(seconds=-1))
    queue.submit("b")
    with sessions.begin() as session:
        overdue.queue_lapsed(session, grace=MINUTE, limit=10)
    assert queue.claim_all() == "abaa"


def test_a_prompt_gets_a_new_turn_after_its_backoff(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"aa")
    with sessions.begin() as session:
        (claimed,) = lifecycle.claim_any(session)
        claims.reschedule(session, claimed, MINUTE)
    assert queue.claim() == ["a"]
    assert queue.claim() == []
    queue.submit(*"bbbb")
    for _ in range(3):
        queue.claim()
    with sessions.begin() as session:
        lifecycle.end_backoffs(session)
        rounds = session.execute(text("SELECT request_id, turn / 2 FROM prompts WHERE status = 'queued'")).all()
    assert dict(rounds)["a"] == dict(rounds)["b"]


def test_two_claims_at_the_same_time_take_different_prompts(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"abcd")
    with sessions.begin() as one, sessions.begin() as other:
        first = lifecycle.claim_any(one, 2)
        # The route's row is locked by the first claim until it commits, so the second must not need it.
        other.execute(text("SET LOCAL lock_timeout = '5s'"))
        one.commit()
        second = lifecycle.claim_any(other, 2)
    assert {claim.request_id for claim in first} | {claim.request_id for claim in second} == set("abcd")


@pytest.mark.parametrize(("ceiling", "taken"), [(None, 10), (12, 10), (4, 4)])
def test_the_claim_reads_only_what_it_takes_however_many_are_queued(
    queue: UserQueue, sessions: Sessions, engine: Engine, app: Flask, ceiling: int | None, taken: int
) -> None:
    """The plan of the claim's scans: the partial index, in order, without a sort.

    With a ceiling it also reads what is ready in the slots that are left, behind what it takes.
    """
    with sessions.begin() as session:
        user_id = queue.user("a")
        session.execute(
            text(
                "INSERT INTO prompts (user_id, prompt_text, websocket, request_id, due_at, attempt_limit, turn)"
                " SELECT :user_id, 'Hi', false, 'a', now(), 5, i FROM generate_series(1, 20000) AS i"
            ),
            {"user_id": user_id},
        )
        session.execute(text("ANALYZE prompts"))
        statement = (CLAIM_WITHIN_LIMIT if ceiling else CLAIM).sql
        plan = session.execute(
            text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"),
            {
                "route": DEFAULT_ROUTE,
                "size": 10,
                "low_share": 1,
                "low_limit": 10,
                "low_first": False,
                "lease": MINUTE,
                "ceiling": ceiling,
            },
        ).scalar_one()
    scans = [node for node in nodes(plan[0]["Plan"]) if node.get("Index Name") == "prompts_claimable"]
    assert len(scans) == (4 if ceiling else 3)
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scans) <= taken + 1 + (ceiling or 0)


def nodes(plan: dict) -> list[dict]:
    return [plan, *itertools.chain.from_iterable(map(nodes, plan.get("Plans", [])))]
