"""The fair queue: users take turns, whoever submits how much, and low priority gets its share."""

import dataclasses
import itertools
import threading
from collections import Counter, deque
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import Engine, text

from shared.accounts import users
from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE, Priority
from shared.prompts import claims, overdue, scheduling, submission
from shared.prompts.submission import NewPrompt, UserLimits
from tests.support import lifecycle
from tests.support.client import ApiUser, assert_problem
from tests.support.lifecycle import MINUTE
from worker import pipeline
from worker.pipeline import Pipeline

NO_LIMITS = UserLimits()


class Queue:
    """The queue in the database, with users by name."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions
        self.names: dict[int, str] = {}
        self._ids: dict[str, int] = {}

    def submit(
        self, *names: str, priority: Priority = Priority.DEFAULT, limits: UserLimits = NO_LIMITS
    ) -> list[int | None]:
        """Submit a prompt for each name, all in one group. Returns their ids."""
        new = [NewPrompt(self.user(name), "Hi", False, request_id=name, priority=priority) for name in names]
        with self.sessions.begin() as session:
            stored = submission.submit(session, new, grace=MINUTE, attempt_limit=5, limits=limits)
        return [each and each.id for each in stored]

    def claim(self, size: int = 1, *, low_share: int = 0, lease: timedelta = MINUTE) -> list[str]:
        """Claim the next prompts. Returns the names of their users."""
        with self.sessions.begin() as session:
            claimed = claims.claim(session, DEFAULT_ROUTE, size, lease, low_share=low_share)
            return [claim.request_id for claim in claimed.claims]

    def user(self, name: str) -> int:
        if name not in self._ids:
            with self.sessions.begin() as session:
                self._ids[name] = users.create(session, name, "hash").id
        return self._ids[name]

    def claim_all(self) -> str:
        return "".join(itertools.chain.from_iterable(iter(self.claim, [])))


@pytest.fixture
def queue(sessions: Sessions) -> Queue:
    return Queue(sessions)


def test_a_user_with_one_prompt_passes_a_user_with_many(queue: Queue) -> None:
    queue.submit(*"aaaa")
    queue.submit("b")
    assert queue.claim_all() == "abaaa"


def test_users_with_many_prompts_take_turns(queue: Queue) -> None:
    queue.submit(*"aaa")
    queue.submit(*"bbb")
    queue.submit(*"ccc")
    taken = queue.claim_all()
    assert Counter(taken) == {"a": 3, "b": 3, "c": 3}
    for start in (0, 3, 6):
        assert set(taken[start : start + 3]) == {"a", "b", "c"}


def test_the_prompts_of_one_user_keep_their_order(queue: Queue, sessions: Sessions) -> None:
    ids = [*queue.submit(*"aa"), *queue.submit("a"), *queue.submit(*"aa")]
    with sessions.begin() as session:
        claimed = claims.claim(session, DEFAULT_ROUTE, 10, MINUTE).claims
    assert [claim.id for claim in claimed] == ids


def test_a_group_of_several_users_gives_each_a_first_turn(queue: Queue) -> None:
    queue.submit(*"aaabbc")
    assert set(queue.claim_all()[:3]) == {"a", "b", "c"}


def test_a_newcomer_starts_after_at_most_one_prompt_of_each_waiting_user(queue: Queue) -> None:
    for name in "abcdefghij":
        queue.submit(*name * 20)
    for _ in range(37):
        queue.claim()
    queue.submit("z")
    before = list(itertools.takewhile(lambda names: names != ["z"], iter(queue.claim, [])))
    counts = Counter(name for names in before for name in names)
    assert len(before) <= 10
    assert max(counts.values(), default=0) <= 1


def test_a_user_with_many_prompts_keeps_an_equal_share_beside_users_who_resubmit_at_once(queue: Queue) -> None:
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


def test_a_user_with_many_retries_goes_no_faster(queue: Queue, sessions: Sessions) -> None:
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


def test_a_released_prompt_keeps_its_turn(queue: Queue, sessions: Sessions) -> None:
    queue.submit(*"aaa")
    with sessions.begin() as session:
        claimed = lifecycle.claim_any(session)
    queue.submit("b")
    with sessions.begin() as session:
        claims.release(session, claimed, grace=MINUTE)
    assert queue.claim_all() == "abaa"


def test_a_prompt_whose_worker_died_keeps_its_turn(queue: Queue, sessions: Sessions) -> None:
    queue.submit(*"aaa")
    queue.claim(lease=timedelta(seconds=-1))
    queue.submit("b")
    with sessions.begin() as session:
        overdue.queue_lapsed(session, grace=MINUTE, limit=10)
    assert queue.claim_all() == "abaa"


def test_a_prompt_gets_a_new_turn_after_its_backoff(queue: Queue, sessions: Sessions) -> None:
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


class TestPriority:
    def test_low_priority_stands_behind_all_other_prompts(self, queue: Queue) -> None:
        queue.submit("l", priority=Priority.LOW)
        queue.submit(*"aaa")
        assert queue.claim_all() == "aaal"

    def test_low_priority_gets_its_share_of_a_claim(self, queue: Queue) -> None:
        queue.submit(*"l" * 5, priority=Priority.LOW)
        queue.submit(*"a" * 20)
        assert Counter(queue.claim(10, low_share=1)) == {"a": 9, "l": 1}

    def test_each_priority_fills_the_places_that_the_other_leaves(self, queue: Queue) -> None:
        queue.submit(*"l" * 5, priority=Priority.LOW)
        queue.submit(*"aa")
        assert Counter(queue.claim(5, low_share=1)) == {"a": 2, "l": 3}
        queue.submit(*"aaaa")
        assert Counter(queue.claim(6, low_share=3)) == {"a": 4, "l": 2}

    def test_attempted_low_prompts_do_not_go_before_default_ones(self, queue: Queue, sessions: Sessions) -> None:
        queue.submit(*"ll", priority=Priority.LOW)
        with sessions.begin() as session:
            claims.release(session, lifecycle.claim_any(session, 2, low_share=2), grace=MINUTE)
        queue.submit(*"aaa")
        assert queue.claim(20, low_share=2) == ["a", "a", "a"]
        assert queue.claim(20, low_share=2) == ["l"]

    def test_workers_give_low_priority_a_tenth_on_average(
        self, queue: Queue, worker: Pipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shares = {size: [] for size in (1, 15, 100)}
        for i in range(1_000):
            monkeypatch.setattr(pipeline.random, "random", lambda i=i: i / 1_000)
            for size, seen in shares.items():
                seen.append(pipeline._low_share(size))
        assert {size: sum(seen) / len(seen) for size, seen in shares.items()} == {
            size: pytest.approx(size / 10, abs=0.01) for size in shares
        }

    def test_a_prompt_of_low_priority_shows_it_and_its_place(self, alice: ApiUser, bob: ApiUser) -> None:
        response = alice.post("/prompts/", json={"prompt_text": "later", "priority": "low"})
        assert (response.json["priority"], response.json["position"]) == ("low", 1)
        ids = [bob.submit("a"), bob.submit("b")]
        assert [bob.show(prompt_id)["position"] for prompt_id in ids] == [1, 2]
        assert alice.show(response.json["id"])["position"] == 3

    def test_an_unknown_priority_is_refused(self, alice: ApiUser) -> None:
        assert_problem(alice.post("/prompts/", json={"prompt_text": "Hi", "priority": "high"}), 400)

    def test_the_default_priority_is_the_same_body_for_an_idempotency_key(self, alice: ApiUser) -> None:
        """Keys of the release before the fair queue stay valid."""
        headers = {"Idempotency-Key": "k"}
        first = alice.post("/prompts/", json={"prompt_text": "Hi"}, headers=headers)
        for body in ({"prompt_text": "Hi", "priority": "default"}, {"prompt_text": "Hi", "priority": None}):
            assert alice.post("/prompts/", json=body, headers=headers).json["id"] == first.json["id"]
        assert_problem(alice.post("/prompts/", json={"prompt_text": "Hi", "priority": "low"}, headers=headers), 422)


class TestPosition:
    def test_every_queued_prompt_shows_its_place_and_a_taken_one_none(
        self, alice: ApiUser, bob: ApiUser, worker: Pipeline
    ) -> None:
        ids = [alice.submit(f"{i}") for i in range(3)]
        his = bob.submit("his")
        assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [1, 3, 4]
        assert bob.show(his)["position"] == 2
        assert [prompt["position"] for prompt in alice.get("/prompts/").json] == [4, 3, 1]
        worker.process(1)
        assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [None, 2, 3]

    def test_a_submission_shows_its_place(self, alice: ApiUser, bob: ApiUser) -> None:
        shown = [alice.post("/prompts/", json={"prompt_text": f"{i}"}).json["position"] for i in range(3)]
        assert shown == [1, 2, 3]
        assert bob.post("/prompts/", json={"prompt_text": "his"}).json["position"] == 2

    def test_a_submission_behind_many_shows_its_place_from_the_next_read_on(
        self, alice: ApiUser, queue: Queue, sessions: Sessions
    ) -> None:
        for name in range(101):
            queue.submit(f"user{name}")
        response = alice.post("/prompts/", json={"prompt_text": "Hi"})
        assert response.json["position"] is None
        assert alice.show(response.json["id"])["position"] == 102

    def test_a_poll_is_answered_again_when_the_position_has_changed(self, alice: ApiUser, worker: Pipeline) -> None:
        alice.submit("first")
        prompt_id = alice.submit("second")
        before = alice.get(f"/prompts/{prompt_id}/").headers["ETag"]
        assert alice.get(f"/prompts/{prompt_id}/", headers={"If-None-Match": before}).status_code == 304
        worker.process(1)
        assert alice.get(f"/prompts/{prompt_id}/", headers={"If-None-Match": before}).json["position"] == 1


class TestPoison:
    def test_a_prompt_that_was_attempted_before_is_claimed_alone(self, queue: Queue, sessions: Sessions) -> None:
        queue.submit(*"aabb")
        queue.claim(lease=timedelta(seconds=-1))
        with sessions.begin() as session:
            overdue.queue_lapsed(session, grace=MINUTE, limit=10)
            claimed = claims.claim(session, DEFAULT_ROUTE, 10, MINUTE)
            assert [claim.attempt for claim in claimed.claims] == [2]
            assert claimed.passed_over == 3
            assert [claim.attempt for claim in claims.claim(session, DEFAULT_ROUTE, 10, MINUTE).claims] == [1, 1, 1]

    def test_a_prompt_that_was_attempted_before_is_left_to_the_next_claim(
        self, queue: Queue, sessions: Sessions
    ) -> None:
        queue.submit("b")
        queue.claim(lease=timedelta(seconds=-1))
        queue.submit(*"aa")
        with sessions.begin() as session:
            overdue.queue_lapsed(session, grace=MINUTE, limit=10)
            session.execute(text("UPDATE prompts SET turn = turn + 100 WHERE attempt > 0"))
            first, second = (claims.claim(session, DEFAULT_ROUTE, 10, MINUTE) for _ in range(2))
        assert [claim.attempt for claim in first.claims] == [1, 1]
        assert first.passed_over == 1
        assert [claim.attempt for claim in second.claims] == [2]

    def test_a_crash_costs_the_neighbours_of_a_group_no_attempt(self, queue: Queue, sessions: Sessions) -> None:
        queue.submit(*"ab")
        queue.claim(2, lease=timedelta(seconds=-1))
        with sessions.begin() as session:
            overdue.queue_lapsed(session, grace=MINUTE, limit=10)
            left = session.scalars(text("SELECT attempt_limit - attempt FROM prompts")).all()
        assert left == [5, 5]

    def test_a_failure_in_a_group_counts(self, queue: Queue, sessions: Sessions) -> None:
        queue.submit(*"ab")
        with sessions.begin() as session:
            first, second = lifecycle.claim_any(session, 2)
            claims.reschedule(session, first, MINUTE)
            claims.release(session, [second], grace=MINUTE)
            left = session.scalars(text("SELECT attempt_limit - attempt FROM prompts ORDER BY id")).all()
        assert left == [4, 5]

    def test_the_last_attempt_of_a_group_is_final(self, queue: Queue, sessions: Sessions) -> None:
        queue.submit(*"ab")
        with sessions.begin() as session:
            session.execute(text("UPDATE prompts SET attempt_limit = 1"))
            assert [claim.final for claim in lifecycle.claim_any(session, 2)] == [True, True]


class TestUserLimits:
    def test_a_user_over_the_backlog_limit_is_refused_and_a_neighbour_is_not(self, make_app) -> None:
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

    def test_the_backlog_limit_is_exact_within_a_group(self, queue: Queue) -> None:
        stored = queue.submit(*"aaab", limits=UserLimits(backlog=2))
        assert [each is not None for each in stored] == [True, True, False, True]

    def test_the_backlog_limit_is_exact_when_groups_come_at_the_same_time(
        self, queue: Queue, sessions: Sessions
    ) -> None:
        queue.user("a")
        stored: deque[int | None] = deque()
        threads = [
            threading.Thread(target=lambda: stored.extend(queue.submit(*"aaa", limits=UserLimits(backlog=5))))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(each is not None for each in stored) == 5
        with sessions() as session:
            turns = session.scalars(text("SELECT turn FROM prompts")).all()
        assert len(set(turns)) == 5

    def test_a_retry_counts_against_every_limit(self, make_app) -> None:
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

    def test_a_retry_is_refused_while_the_service_is_overloaded(self, make_app) -> None:
        alice = ApiUser(make_app(backlog_limit=1)[0], "alice")
        first = alice.submit()
        alice.post(f"/prompts/{first}/cancel/")
        alice.submit()
        assert_problem(alice.post(f"/prompts/{first}/retry/"), 503)

    def test_no_more_of_a_users_prompts_run_than_the_running_limit(self, queue: Queue, sessions: Sessions) -> None:
        limits = UserLimits(running=2)
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

    def test_a_users_low_prompts_wait_for_the_default_ones(self, queue: Queue, sessions: Sessions) -> None:
        limits = UserLimits(running=1)
        queue.submit(*"lll", priority=Priority.LOW, limits=limits)
        queue.submit("a", limits=limits)
        user_id = queue.user("l")
        queue.submit("l", limits=limits)
        with sessions.begin() as session:
            submission.cancel(session, user_id, session.scalar(text("SELECT min(id) FROM prompts")))
            scheduling.grant_turns(session, [user_id], grace=MINUTE, running_limit=1)
            granted = session.scalars(text("SELECT priority FROM prompts WHERE request_id = 'l' AND turn IS NOT NULL"))
            assert granted.all() == ["default"]

    def test_a_worker_gives_the_next_turn_when_a_prompt_ends(self, make_app, worker: Pipeline) -> None:
        alice = ApiUser(make_app(user_running_limit=1)[0], "alice")
        ids = [alice.submit(f"{i}") for i in range(3)]
        assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [1, None, None]
        limited = dataclasses.replace(worker, running_limit=1, queue=lifecycle.RecordingQueue())
        limited.process(10)
        assert limited.queue.woken == [1]
        assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [None, 1, None]

    def test_a_cancelled_or_deleted_prompt_makes_room_for_the_next(self, make_app) -> None:
        alice = ApiUser(make_app(user_running_limit=1)[0], "alice")
        ids = [alice.submit(f"{i}") for i in range(3)]
        alice.post(f"/prompts/{ids[0]}/cancel/")
        assert [alice.show(prompt_id)["position"] for prompt_id in ids] == [None, 1, None]
        alice.delete(f"/prompts/{ids[1]}/")
        assert alice.show(ids[2])["position"] == 1


def grant(session, user_id: int) -> dict[str, int]:
    return dict(scheduling.grant_turns(session, [user_id], grace=MINUTE, running_limit=2))


def test_two_claims_at_the_same_time_take_different_prompts(queue: Queue, sessions: Sessions) -> None:
    queue.submit(*"abcd")
    with sessions.begin() as one, sessions.begin() as other:
        first = lifecycle.claim_any(one, 2)
        # The lane's row is locked by the first claim until it commits, so the second must not need it.
        other.execute(text("SET LOCAL lock_timeout = '5s'"))
        one.commit()
        second = lifecycle.claim_any(other, 2)
    assert {claim.request_id for claim in first} | {claim.request_id for claim in second} == set("abcd")


def test_the_claim_reads_only_what_it_takes_however_many_are_queued(
    queue: Queue, sessions: Sessions, engine: Engine, app: Flask
) -> None:
    """The plan of the claim's scans: the partial index, in order, without a sort."""
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
        statement = claims._CLAIM.sql
        plan = session.execute(
            text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"),
            {"route": DEFAULT_ROUTE, "size": 10, "low_share": 1, "low_first": False, "lease": MINUTE},
        ).scalar_one()
    scans = [node for node in nodes(plan[0]["Plan"]) if node.get("Index Name") == "prompts_claimable"]
    assert len(scans) == 3
    assert sum(node["Actual Rows"] * node["Actual Loops"] for node in scans) <= 11


def nodes(plan: dict) -> list[dict]:
    return [plan, *itertools.chain.from_iterable(map(nodes, plan.get("Plans", [])))]
