"""The lifecycle functions of `shared/prompts`: attempts are fences, leases lapse, the feed has no gaps."""

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.accounts import users
from shared.db.engine import Sessions
from shared.db.models import DEFAULT_ROUTE, Prompt
from shared.errors import AlreadyEndedError, NotEndedError, PromptNotFoundError
from shared.prompts import claims, feed, overdue, queries, scheduling, submission
from shared.prompts.feed import DeletedPrompt, FinishedPrompt
from tests.support import lifecycle
from tests.support.lifecycle import MINUTE, claim, claim_any, complete

PAST = timedelta(seconds=-1)


@pytest.fixture
def user_id(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return users.create(session, "alice", "hash").id


def submit(session: Session, user_id: int, **changes) -> int:
    return lifecycle.submit(session, user_id, **changes).id


def seq_of(session: Session, user_id: int) -> int:
    return feed.position(session, user_id, None)[0]


def test_a_claim_is_exclusive(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        prompt_id = submit(session, user_id)
        assert claim(session, prompt_id).attempt == 1
        assert claim_any(session) == []


def test_a_redelivered_prompt_is_completed_once(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        claimed = claim(session, submit(session, user_id))
        assert complete(session, claimed, "A").seq == 1
        assert complete(session, claimed, "B") is None
        assert queries.get(session, user_id, claimed.id).answer.response_text == "A"
        assert seq_of(session, user_id) == 1


def test_a_worker_that_lost_its_lease_changes_nothing(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        zombie = claim(session, submit(session, user_id), lease=PAST)
        assert overdue.queue_lapsed(session, grace=MINUTE, limit=10) == {DEFAULT_ROUTE: 1}
        assert complete(session, zombie, "late") is None
        successor = claim(session, zombie.id)
        assert successor.attempt == 2
        assert complete(session, zombie, "late") is None
        assert claims.fail(session, zombie, "late") is None
        assert not claims.reschedule(session, zombie, MINUTE)
        assert claims.renew(session, [(zombie.id, zombie.attempt)], MINUTE) == set()
        assert complete(session, successor, "in time").answer.response_text == "in time"


def test_a_retry_does_not_revive_an_earlier_attempt(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        zombie = claim(session, submit(session, user_id))
        submission.cancel(session, user_id, zombie.id)
        submission.retry(session, user_id, zombie.id, grace=MINUTE, attempts=5)
        assert claim(session, zombie.id).attempt == 2
        assert complete(session, zombie, "late") is None


def test_renewing_a_lease_postpones_its_due_date(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        claimed = claim(session, submit(session, user_id), lease=PAST)
        key = (claimed.id, claimed.attempt)
        assert claims.renew(session, [key], MINUTE) == {key}
        assert overdue.queue_lapsed(session, grace=MINUTE, limit=10) == {}


def test_two_reapers_never_queue_the_same_prompt(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        for _ in range(4):
            claim(session, submit(session, user_id), lease=PAST)
    with sessions.begin() as first, sessions.begin() as second:
        assert overdue.queue_lapsed(first, grace=MINUTE, limit=3) == {DEFAULT_ROUTE: 3}
        assert overdue.queue_lapsed(second, grace=MINUTE, limit=3) == {DEFAULT_ROUTE: 1}


def test_a_rescheduled_prompt_cannot_be_claimed_before_its_time(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        claimed = claim(session, submit(session, user_id))
        assert claims.reschedule(session, claimed, MINUTE)
        assert claim_any(session) == []
        assert scheduling.users_without_turn(session) == []
        lifecycle.end_backoffs(session)
        assert claim(session, claimed.id).attempt == 2


def test_a_prompt_that_kills_its_workers_fails_after_its_last_attempt(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        prompt_id = submit(session, user_id, attempt_limit=2)
        assert not claim(session, prompt_id, lease=PAST).final
        assert overdue.exhausted(session, limit=10) == []
        overdue.queue_lapsed(session, grace=MINUTE, limit=10)
        assert claim(session, prompt_id, lease=PAST).final
        assert overdue.queue_lapsed(session, grace=MINUTE, limit=10) == {}
        assert overdue.exhausted(session, limit=10) == [prompt_id]
        ending = overdue.fail_exhausted(session, prompt_id)
        assert (ending.change, ending.seq) == ("failed", 1)
        assert "Gave up" in ending.error
        assert overdue.fail_exhausted(session, prompt_id) is None


def test_a_retry_grants_the_full_number_of_attempts(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        prompt_id = submit(session, user_id, attempt_limit=1)
        claims.fail(session, claim(session, prompt_id), "no")
        prompt = submission.retry(session, user_id, prompt_id, grace=MINUTE, attempts=2)
        assert (prompt.status, prompt.error, prompt.completed_at) == ("queued", None, None)
        assert not claim(session, prompt_id, lease=PAST).final
        overdue.queue_lapsed(session, grace=MINUTE, limit=10)
        assert claim(session, prompt_id).final


def test_a_finished_prompt_cannot_be_cancelled_and_an_unfinished_one_cannot_be_retried(
    sessions: Sessions, user_id: int
) -> None:
    with sessions.begin() as session:
        prompt_id = submit(session, user_id)
        with pytest.raises(NotEndedError):
            submission.retry(session, user_id, prompt_id, grace=MINUTE, attempts=1)
        submission.cancel(session, user_id, prompt_id)
        with pytest.raises(AlreadyEndedError):
            submission.cancel(session, user_id, prompt_id)


def test_every_step_rejects_another_users_prompt(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        stranger = users.create(session, "mallory", "hash").id
        prompt_id = submit(session, user_id)
        for step in (queries.get, queries.get_with_seq, submission.cancel, submission.delete):
            with pytest.raises(PromptNotFoundError):
                step(session, stranger, prompt_id)
        with pytest.raises(PromptNotFoundError):
            submission.retry(session, stranger, prompt_id, grace=MINUTE, attempts=1)
        assert queries.completed(session, stranger, [prompt_id]) == {}
        assert seq_of(session, stranger) == seq_of(session, user_id) == 0


def test_feed_numbers_have_no_gaps(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        a, b, c = (submit(session, user_id) for _ in range(3))
        complete(session, claim(session, a), "A")
        claims.fail(session, claim(session, b), "no")
        with pytest.raises(AlreadyEndedError):
            submission.cancel(session, user_id, a)
        submission.cancel(session, user_id, c)
        submission.delete(session, user_id, a)
        changes = session.execute(text("SELECT seq, prompt_id, change FROM feed ORDER BY seq")).all()
    assert changes == [(1, a, "completed"), (2, b, "failed"), (3, c, "cancelled"), (4, a, "deleted")]


def test_feed_numbers_become_visible_in_order(sessions: Sessions, user_id: int) -> None:
    """The second of two transactions waits for the first, so that no reader sees 2 without 1."""
    with sessions.begin() as session:
        a, b = submit(session, user_id), submit(session, user_id)
    with sessions.begin() as first:
        submission.cancel(first, user_id, a)
        with sessions() as second:
            second.execute(text("SET LOCAL lock_timeout = '100ms'"))
            with pytest.raises(Exception, match="lock timeout"):
                submission.cancel(second, user_id, b)


def test_a_prompt_is_finished_exactly_when_it_has_no_due_date(sessions: Sessions, user_id: int) -> None:
    with sessions.begin() as session:
        a, b, c, _ = (submit(session, user_id) for _ in range(4))
        complete(session, claim(session, a), "A")
        claims.fail(session, claim(session, b), "no")
        submission.cancel(session, user_id, c)
        rows = session.query(Prompt).all()
        assert all((row.due_at is None) == (row.status in ("completed", "failed", "cancelled")) for row in rows)


class TestFeed:
    def test_the_feed_replays_the_announced_events(self, sessions: Sessions, user_id: int) -> None:
        with sessions.begin() as session:
            ids = [submit(session, user_id) for _ in range(3)]
            announced = [submission.cancel(session, user_id, prompt_id) for prompt_id in ids]
            replay = feed.read(session, user_id, 1)
            assert [(e.seq, e.prompt_id, e.username) for e in replay.events] == [
                (e.seq, e.prompt_id, e.username) for e in announced[1:]
            ]
            assert (replay.reached, replay.more) == (3, False)

    def test_the_feed_is_read_in_pages(self, sessions: Sessions, user_id: int) -> None:
        with sessions.begin() as session:
            for _ in range(5):
                submission.cancel(session, user_id, submit(session, user_id))
            cursor, seen, more = 0, [], True
            while more:
                replay = feed.read(session, user_id, cursor, limit=2)
                seen += [ending.seq for ending in replay.events]
                cursor, more = replay.reached, replay.more
            assert seen == [1, 2, 3, 4, 5]

    def test_the_feed_is_read_in_pages_of_a_number_of_bytes(self, sessions: Sessions, user_id: int) -> None:
        """Prompts without an event, and one that is larger than a page, do not end the reading early."""
        with sessions.begin() as session:
            for text, websocket in [
                ("a" * 900, True), ("b", True), ("large" * 1_000, True), ("c", False), ("d", True), ("e" * 900, False),
                ("f" * 600, True), ("g" * 600, True),
            ]:  # fmt: skip
                submission.cancel(session, user_id, submit(session, user_id, prompt_text=text, websocket=websocket))
            cursor, seen, more = 0, [], True
            while more:
                replay = feed.read(session, user_id, cursor, max_bytes=1_000)
                assert replay.reached > cursor
                seen.append([ending.seq for ending in replay.events])
                cursor, more = replay.reached, replay.more
            assert seen == [[1, 2], [3], [5, 7], [8]]
            assert cursor == 8

    def test_the_feed_omits_deletions_and_prompts_without_websocket_unless_everything_is_wanted(
        self, sessions: Sessions, user_id: int
    ) -> None:
        with sessions.begin() as session:
            gone, kept = submit(session, user_id), submit(session, user_id)
            quiet = submit(session, user_id, websocket=False)
            for prompt_id in (gone, kept, quiet):
                submission.cancel(session, user_id, prompt_id)
            submission.delete(session, user_id, gone)
            replay = feed.read(session, user_id, 0)
            assert [ending.prompt_id for ending in replay.events] == [kept]
            assert replay.reached == 4
            everything = feed.read(session, user_id, 0, everything=True).events
            assert [(each.seq, each.prompt_id, type(each)) for each in everything] == [
                (2, kept, FinishedPrompt), (3, quiet, FinishedPrompt), (4, gone, DeletedPrompt),
            ]  # fmt: skip

    def test_a_position_before_the_purged_entries_is_reported_as_lost(self, sessions: Sessions, user_id: int) -> None:
        with sessions.begin() as session:
            assert feed.position(session, user_id, 0)[1]
            assert not feed.position(session, user_id, 1)[1]
            for _ in range(3):
                submission.cancel(session, user_id, submit(session, user_id))
            assert [feed.position(session, user_id, since)[1] for since in range(5)] == [True, True, True, True, False]
            session.execute(text("UPDATE feed SET at = now() - interval '31 days' WHERE seq <= 2"))
            feed.purge(session, timedelta(days=30))
            assert [feed.position(session, user_id, since)[1] for since in range(5)] == [
                False,
                False,
                True,
                True,
                False,
            ]
            session.execute(text("DELETE FROM feed"))
            assert [feed.position(session, user_id, since)[1] for since in range(5)] == [
                False,
                False,
                False,
                True,
                False,
            ]
