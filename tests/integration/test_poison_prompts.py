"""A prompt that kills its worker costs the prompts that were claimed with it no attempt."""

from datetime import timedelta

from sqlalchemy import text

from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE
from shared.prompts import claims, overdue
from tests.support import lifecycle
from tests.support.lifecycle import MINUTE
from tests.support.user_queue import UserQueue


def test_a_prompt_that_was_attempted_before_is_claimed_alone(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"aabb")
    queue.claim(lease=timedelta(seconds=-1))
    with sessions.begin() as session:
        overdue.queue_lapsed(session, grace=MINUTE, limit=10)
        claimed = claims.claim(session, DEFAULT_ROUTE, 10, MINUTE)
        assert [claim.attempt for claim in claimed.claims] == [2]
        assert claimed.passed_over == 3
        assert [claim.attempt for claim in claims.claim(session, DEFAULT_ROUTE, 10, MINUTE).claims] == [1, 1, 1]


def test_a_prompt_that_was_attempted_before_is_left_to_the_next_claim(queue: UserQueue, sessions: Sessions) -> None:
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


def test_a_crash_costs_no_attempt_of_prompts_that_were_claimed_together(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"ab")
    queue.claim(2, lease=timedelta(seconds=-1))
    with sessions.begin() as session:
        overdue.queue_lapsed(session, grace=MINUTE, limit=10)
        left = session.scalars(text("SELECT attempt_limit - attempt FROM prompts")).all()
    assert left == [5, 5]


def test_a_failure_in_a_group_counts(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"ab")
    with sessions.begin() as session:
        first, second = lifecycle.claim_any(session, 2)
        claims.reschedule(session, first, MINUTE)
        claims.release(session, [second], grace=MINUTE)
        left = session.scalars(text("SELECT attempt_limit - attempt FROM prompts ORDER BY id")).all()
    assert left == [4, 5]


def test_the_last_attempt_of_a_group_is_final(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"ab")
    with sessions.begin() as session:
        session.execute(text("UPDATE prompts SET attempt_limit = 1"))
        assert [claim.final for claim in lifecycle.claim_any(session, 2)] == [True, True]
