"""The limit of a route's prompts at a time: exact slots, and a limit that follows what the provider can handle."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from shared.db.engine import Sessions, make_engine, make_sessions
from shared.db.models import DEFAULT_ROUTE, Priority
from shared.prompts import claims, concurrency
from shared.prompts.claims import Claimed
from shared.prompts.concurrency import Reduction
from tests.support.lifecycle import MINUTE
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until
from tests.support.user_queue import UserQueue

CLAIMERS = 6


@pytest.fixture(scope="module")
def module_engine(servers: Servers) -> Iterator[Engine]:
    """One database for all tests of this file."""
    with servers.database() as name:
        engine = make_engine(servers.settings(name), application_name="test")
        yield engine
        engine.dispose()


@pytest.fixture
def sessions(module_engine: Engine) -> Iterator[Sessions]:
    sessions = make_sessions(module_engine)
    yield sessions
    with sessions.begin() as session:
        session.execute(text("TRUNCATE users, routes CASCADE"))


def claim(sessions: Sessions, size: int = 1, *, ceiling: int | None = None, **shares: int) -> Claimed:
    with sessions.begin() as session:
        return claims.claim(session, DEFAULT_ROUTE, size, MINUTE, ceiling=ceiling, **shares)


def limit(sessions: Sessions) -> float | None:
    with sessions() as session:
        return session.scalar(text("SELECT concurrency FROM routes"))


def set_limit(sessions: Sessions, concurrency: float, *, reduced_ago: timedelta = timedelta(0)) -> None:
    with sessions.begin() as session:
        session.execute(
            text(
                "INSERT INTO routes (route, concurrency, concurrency_reduced_at)"
                " VALUES (:route, :concurrency, now() - :ago) ON CONFLICT (route) DO UPDATE"
                " SET concurrency = excluded.concurrency, concurrency_reduced_at = excluded.concurrency_reduced_at"
            ),
            {"route": DEFAULT_ROUTE, "concurrency": concurrency, "ago": reduced_ago},
        )


def refuse(sessions: Sessions, refused: claims.Claim) -> Reduction:
    """Reduce the limit and release the prompt, as a worker does."""
    with sessions.begin() as session:
        reduction = concurrency.reduce(session, DEFAULT_ROUTE, refused=1, claimed_at=refused.claimed_at)
        claims.release(session, [refused], grace=MINUTE)
        return reduction


@contextmanager
def claiming_at_once(sessions: Sessions, claim_one: Callable[[], Claimed]) -> Iterator[list[Claimed]]:
    """Let claims begin while the slots are locked, and go on together."""
    results: list[Claimed] = []
    threads = [threading.Thread(target=lambda: results.append(claim_one())) for _ in range(CLAIMERS)]
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"
    )

    def are_waiting() -> bool:
        with sessions() as watching:
            return watching.scalar(waiting) == CLAIMERS

    with sessions.begin() as session:
        session.execute(text(concurrency.LOCK_SLOTS), {"route": DEFAULT_ROUTE})
        for thread in threads:
            thread.start()
        wait_until(are_waiting, what="all claims waiting for the slots")
    for thread in threads:
        thread.join(MAX_WAIT_SECONDS)
    yield results


@pytest.mark.parametrize("is_reduced", [False, True])
@pytest.mark.parametrize("in_autocommit", [False, True])
def test_claims_at_the_same_time_never_exceed_the_limit(
    queue: UserQueue, sessions: Sessions, in_autocommit: bool, is_reduced: bool
) -> None:
    queue.submit(*"abcabc" * 2)
    ceiling = None if is_reduced else 4
    if is_reduced:
        set_limit(sessions, 4.9)

    in_autocommit_mode = sessions.kw["bind"].execution_options(isolation_level="AUTOCOMMIT")

    def claim_one() -> Claimed:
        if not in_autocommit:
            return claim(sessions, ceiling=ceiling)
        with in_autocommit_mode.connect() as connection:
            return claims.claim(connection, DEFAULT_ROUTE, 1, MINUTE, ceiling=ceiling)

    with claiming_at_once(sessions, claim_one) as results:
        assert sorted(len(each.claims) for each in results) == [0, 0, 1, 1, 1, 1]
    assert all(each.is_limited for each in results)


@pytest.mark.parametrize(
    ("ceiling", "reduced_to", "size", "claimed", "ready"),
    [
        (None, None, 9, 9, 0),  # without a limit nothing else is counted
        (20, None, 9, 9, 3),
        (10, None, 9, 9, 1),
        (9, None, 9, 9, 0),
        (5, None, 9, 5, 0),
        (None, 5.99, 9, 5, 0),
        (7, 5.0, 9, 5, 0),
        (3, 5.0, 9, 3, 0),
        (7, None, 3, 3, 4),
    ],
)
def test_a_claim_takes_what_has_a_slot_and_counts_what_is_ready_for_the_others(
    queue: UserQueue,
    sessions: Sessions,
    ceiling: int | None,
    reduced_to: float | None,
    size: int,
    claimed: int,
    ready: int,
) -> None:
    queue.submit(*"abcd" * 3)
    if reduced_to is not None:
        set_limit(sessions, reduced_to)
    taken = claim(sessions, size, ceiling=ceiling)
    assert (len(taken.claims), taken.ready, taken.is_limited) == (
        claimed,
        ready,
        ceiling is not None or bool(reduced_to),
    )
    assert all(each.is_limited == taken.is_limited for each in taken.claims)


def test_hosts_with_different_ceilings_each_keep_their_own(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"abcdefgh")
    assert [len(claim(sessions, ceiling=ceiling).claims) for ceiling in (2, 2, 2, 4, 4, 4, 2)] == [1, 1, 0, 1, 1, 0, 0]


def test_users_take_turns_for_the_slots_of_a_limited_route(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"aaaaa")
    queue.submit(*"bbb")
    order = ""
    while taken := claim(sessions, 5, ceiling=1).claims:
        (running,) = taken
        order += running.request_id
        with sessions.begin() as session:
            claims.fail(session, running, "no")
    assert order == "abababaa"


@pytest.mark.parametrize(("low_share", "low"), [(0, {0}), (10, {0, 1}), (50, {2, 3}), (100, {5})])
def test_low_priority_gets_its_share_of_the_slots_that_are_free(
    queue: UserQueue, sessions: Sessions, low_share: int, low: set[int]
) -> None:
    """It gets the same part of the 5 free slots as of the 100 that were asked for, rounded by chance."""
    queue.submit(*"a" * 10, priority=Priority.LOW)
    queue.submit(*"b" * 10)
    names = [each.request_id for each in claim(sessions, 100, ceiling=5, low_share=low_share).claims]
    assert names.count("a") in low
    assert len(names) == 5


def test_the_probe_after_a_pause_needs_a_slot(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"abc")
    (running,) = claim(sessions, 1, ceiling=1).claims
    with sessions.begin() as session:
        session.execute(text("UPDATE routes SET paused_until = now() - interval '1 s'"))
    assert claim(sessions, 1, ceiling=1).claims == []
    with sessions.begin() as session:
        claims.fail(session, running, "no")
    assert claim(sessions, 1, ceiling=1).is_probe


# Reductions


@pytest.mark.parametrize(("others", "expected"), [(0, 1), (1, 1), (4, 3.2), (10, 8), (50, 40)])
def test_a_refusal_reduces_the_limit_to_a_part_of_what_still_runs(
    queue: UserQueue, sessions: Sessions, others: int, expected: float
) -> None:
    queue.submit(*"a" * (others + 1))
    *_, refused = claim(sessions, others + 1).claims
    assert refuse(sessions, refused) == Reduction(pytest.approx(expected), others, is_new=True)
    assert limit(sessions) == pytest.approx(expected)


def test_a_burst_of_refusals_reduces_the_limit_once_and_then_to_what_the_provider_has_kept(
    queue: UserQueue, sessions: Sessions
) -> None:
    queue.submit(*"a" * 20)
    burst = claim(sessions, 20).claims
    reductions = [refuse(sessions, each) for each in burst[:17]]
    assert [each.is_new for each in reductions] == [True] + [False] * 16
    assert [each.limit for each in reductions] == pytest.approx([15.2, 15.2, 15.2, 15.2, *range(15, 2, -1)])
    assert limit(sessions) == 3


def test_refusals_under_the_reduced_limit_reduce_it_again(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit(*"a" * 6)
    first = claim(sessions, 5).claims
    refuse(sessions, first[0])
    assert limit(sessions) == pytest.approx(3.2)
    set_limit(sessions, 5.2)
    (refused,) = claim(sessions, 5).claims
    assert refuse(sessions, refused).is_new
    assert limit(sessions) == pytest.approx(3.2)


# Increases. The clock is that of PostgreSQL, so the cases give ages, and tolerate that time passes.


def increase(sessions: Sessions, *, answered: int = 1, took: float, ceiling: int | None = None) -> float | None:
    with sessions.begin() as session:
        claimed_at = session.scalar(text("SELECT now() - :took"), {"took": timedelta(seconds=took)})
        concurrency.increase(session, DEFAULT_ROUTE, answered=answered, claimed_at=claimed_at, ceiling=ceiling)
    return limit(sessions)


@pytest.mark.parametrize(
    ("reduced_ago", "took", "running", "answered", "before", "ceiling", "after"),
    [
        (1_000, 999, 8, 1, 10, None, 10.1),  # the first round: 1 / limit for each answer
        (1_000, 999, 8, 4, 10, None, 10.4),
        (1_000, 999, 10, 1, 10, 20, 10.1),
        (400, 100, 10, 1, 10, None, 10.1),  # not yet doubled
        (600, 100, 10, 1, 10, None, 11),  # doubled in 6 rounds: 1 for each answer
        (1_000, 999, 0, 1, 1, None, 2),  # from 1
        (1_000, 999, 3, 1, 10, None, 10),  # less than half of the slots are used
        (1_000, 999, 4, 1, 10, None, 10.1),
        (1_000, 2_000, 10, 1, 10, None, 10),  # claimed before the reduction
        (1_000, 999, 9, 1, 9.95, 10, None),  # it reaches the ceiling
        (3_700, 3_000, 10, 1, 10, None, None),  # an hour without a refusal
    ],
)
def test_answers_increase_the_limit(
    queue: UserQueue,
    sessions: Sessions,
    reduced_ago: float,
    took: float,
    running: int,
    answered: int,
    before: float,
    ceiling: int | None,
    after: float | None,
) -> None:
    queue.submit(*"a" * (running + 1))
    claim(sessions, running)
    set_limit(sessions, before, reduced_ago=timedelta(seconds=reduced_ago))
    assert increase(sessions, answered=answered, took=took, ceiling=ceiling) == (after and pytest.approx(after))


def test_answers_do_not_limit_a_route_that_is_not_reduced(queue: UserQueue, sessions: Sessions) -> None:
    queue.submit("a")
    claim(sessions, 1)
    assert increase(sessions, took=1, ceiling=10) is None


# What is ready


@pytest.mark.parametrize(
    ("ceiling", "reduced_to", "running", "pause", "if_limited", "ready"),
    [
        (None, None, 2, None, False, 8),
        (None, None, 2, None, True, 0),
        (5, None, 2, None, True, 3),
        (5, None, 5, None, True, 0),
        (3, None, 5, None, True, 0),
        (None, 4.5, 2, None, True, 2),
        (20, None, 2, None, True, 8),
        (5, None, 2, "1 min", False, 0),
        (5, None, 2, "-1 min", False, 1),
        (2, None, 2, "-1 min", False, 0),
    ],
)
def test_as_many_prompts_are_ready_as_slots_are_free(
    queue: UserQueue,
    sessions: Sessions,
    ceiling: int | None,
    reduced_to: float | None,
    running: int,
    pause: str | None,
    if_limited: bool,
    ready: int,
) -> None:
    queue.submit(*"ab" * 5)
    claim(sessions, running)
    if reduced_to is not None:
        set_limit(sessions, reduced_to)
    with sessions.begin() as session:
        if pause is not None:
            session.execute(text("UPDATE routes SET paused_until = now() + CAST(:pause AS interval)"), {"pause": pause})
        counted = concurrency.count_ready(session, DEFAULT_ROUTE, ceiling=ceiling, limit=100, if_limited=if_limited)
    assert counted == ready
