"""Operations: admins retry and cancel many prompts by a filter. Workers change each of them once."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from shared.accounts.audit import Actor
from shared.db.engine import Sessions
from shared.db.models import Action
from shared.errors import ProviderError
from shared.messaging.announcements import Announcer
from shared.messaging.redis import make_redis
from shared.operators import operations, steps
from shared.operators.filters import OperationFilter
from shared.settings import Settings
from tests.support.client import ApiUser, assert_problem
from tests.support.failed_prompts import add_failed
from tests.support.lifecycle import RecordingQueue
from tests.support.providers import Script
from worker.operations import OperationDriver
from worker.pipeline import Pipeline

COUNT = "SELECT status, count(*) FROM prompts GROUP BY status"


@pytest.fixture
def queue() -> RecordingQueue:
    return RecordingQueue()


@pytest.fixture
def make_driver(settings: Settings, sessions: Sessions, queue: RecordingQueue) -> Callable[..., OperationDriver]:
    """A driver with changed settings, as on another worker host."""

    def make(**changes: object) -> OperationDriver:
        changed = settings.model_copy(update=changes)
        return OperationDriver(changed, sessions, queue, Announcer(make_redis(settings)))

    return make


@pytest.fixture
def driver(make_driver: Callable[..., OperationDriver]) -> OperationDriver:
    return make_driver()


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "GROUP", 10)


def count(admin: ApiUser, action: str, **wanted: object) -> int:
    response = admin.post("/admin/operations/", json={"action": action, "filter": wanted, "dry_run": True})
    assert response.status_code == 200, response.text
    return response.json["count"]


def begin(admin: ApiUser, action: str, **wanted: object) -> int:
    """Begin an operation with all prompts that match. Returns its id."""
    body = {"action": action, "filter": wanted, "expected_count": count(admin, action, **wanted)}
    response = admin.post("/admin/operations/", json=body)
    assert response.status_code == 202, response.text
    assert response.headers["Location"] == f"/admin/operations/{response.json['id']}/"
    return response.json["id"]


def show(admin: ApiUser, operation_id: int) -> dict:
    return admin.get(f"/admin/operations/{operation_id}/").json


def counts(admin: ApiUser, operation_id: int) -> tuple:
    shown = show(admin, operation_id)
    return tuple(shown[name] for name in ("status", "total", "changed", "skipped", "undone"))


def run(driver: OperationDriver) -> None:
    """Do all operations, as far as nobody else holds their leases."""
    while driver.step():
        pass


def statuses(sessions: Sessions) -> dict[str, int]:
    with sessions() as session:
        return dict(session.execute(text(COUNT)).all())


def audited(admin: ApiUser, action: str) -> Counter[str]:
    """How many prompts of each user the audit trail has for this act."""
    entries = admin.get("/admin/audit/?limit=100").json
    found: Counter[str] = Counter()
    for each in entries:
        if each["action"] == action:
            found[each["user"]["username"]] += each["details"]["prompts"]
    return found


def lapse(sessions: Sessions) -> None:
    """Let the lease of a driver that was killed be over."""
    with sessions.begin() as session:
        session.execute(text("UPDATE operations SET due_at = now() WHERE due_at IS NOT NULL"))


class TestRetry:
    def test_a_dry_run_counts_by_model_and_changes_nothing(
        self, admin: ApiUser, alice: ApiUser, bob: ApiUser, sessions: Sessions
    ) -> None:
        add_failed(sessions, alice.id, 3)
        add_failed(sessions, bob.id, 2, route="other")
        shown = admin.post("/admin/operations/", json={"action": "retry", "dry_run": True}).json
        assert (shown["count"], shown["users"]) == (5, 2)
        assert shown["models"] == [
            {"model": "default", "prompts": 3, "users": 1},
            {"model": "other", "prompts": 2, "users": 1},
        ]
        assert admin.get("/admin/operations/").json == []
        assert statuses(sessions) == {"failed": 5}

    def test_all_prompts_that_match_are_retried_and_all_of_it_is_audited(
        self, admin: ApiUser, alice: ApiUser, bob: ApiUser, sessions: Sessions, driver: OperationDriver, queue
    ) -> None:
        mine = add_failed(sessions, alice.id, 3)
        add_failed(sessions, bob.id, 2)
        operation_id = begin(admin, "retry", model="default")
        assert counts(admin, operation_id) == ("running", 5, 0, 0, 0)
        run(driver)
        assert counts(admin, operation_id) == ("completed", 5, 5, 0, 0)
        shown = alice.show(mine[0])
        assert (shown["status"], shown["error"], shown["completed_at"]) == ("queued", None, None)
        assert sorted(alice.show(each)["position"] for each in mine)[0] in (1, 2)
        assert sum(queue.woken) == 5
        assert audited(admin, "prompts.retried") == {"alice": 3, "bob": 2}
        acts = [each["action"] for each in admin.get("/admin/audit/").json if each["details"].get("operation_id")]
        assert acts == ["operation.ended", "prompts.retried", "prompts.retried", "operation.begun"]

    def test_retried_prompts_are_answered(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver, worker: Pipeline
    ) -> None:
        ids = add_failed(sessions, alice.id, 3)
        begin(admin, "retry")
        run(driver)
        for _ in ids:  # each is claimed alone, because it was attempted before
            worker.process(1)
        assert [alice.show(each)["status"] for each in ids] == ["completed"] * 3

    def test_the_filter_says_which_prompts(
        self, admin: ApiUser, alice: ApiUser, bob: ApiUser, sessions: Sessions
    ) -> None:
        add_failed(sessions, alice.id, 2)
        lines = add_failed(sessions, alice.id, 2, error="Another error.")
        add_failed(sessions, bob.id, 2, route="other")
        add_failed(sessions, bob.id, 1, status="cancelled", error=None)
        with sessions.begin() as session:
            of_batch = "UPDATE prompts SET batch_id = 7, batch_line = id WHERE id = ANY(:ids)"
            session.execute(text(of_batch), {"ids": lines})
        now = datetime.now(UTC)
        earlier, later = ((now + timedelta(hours=hours)).isoformat() for hours in (-1, 1))
        matching = [
            ({}, 6),
            ({"status": "cancelled"}, 1),
            ({"model": "other"}, 2),
            ({"user": alice.id}, 4),
            ({"error": "The provider"}, 4),
            ({"error": "provider"}, 0),
            ({"error": "The provider", "user": alice.id}, 2),
            ({"since": earlier}, 6),
            ({"since": later}, 0),
            ({"until": later, "model": "other"}, 2),
            ({"until": earlier}, 0),
            ({"batch": "batch_7"}, 2),
            ({"ids": [lines[0], lines[1], 999]}, 2),
        ]
        assert [(wanted, count(admin, "retry", **wanted)) for wanted, _ in matching] == matching

    def test_an_operation_begins_only_with_as_many_prompts_as_were_confirmed(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions
    ) -> None:
        add_failed(sessions, alice.id, 3)
        body = {"action": "retry", "expected_count": 2}
        assert "3 prompts match" in assert_problem(admin.post("/admin/operations/", json=body), 409)["detail"]
        assert admin.get("/admin/operations/").json == []
        assert admin.post("/admin/operations/", json=body | {"expected_count": 4}).json["total"] == 3

    def test_an_operation_of_too_many_prompts_is_refused(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(operations, "MAX_PROMPTS", 2)
        add_failed(sessions, alice.id, 3)
        problem = assert_problem(admin.post("/admin/operations/", json={"action": "retry", "expected_count": 3}), 400)
        assert problem["errors"][0]["field"] == "filter"

    def test_prompts_that_have_changed_since_it_began_are_left_alone(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver, worker: Pipeline
    ) -> None:
        retried, deleted, failed_again, emptied = add_failed(sessions, alice.id, 4)
        operation_id = begin(admin, "retry")
        alice.delete(f"/prompts/{deleted}/")
        alice.post(f"/prompts/{failed_again}/retry/")
        dataclasses.replace(worker, generator=Script(ProviderError("no", retryable=False))).process(1)
        with sessions.begin() as session:
            session.execute(text("UPDATE prompts SET emptied_at = now() WHERE id = :id"), {"id": emptied})
        run(driver)
        assert counts(admin, operation_id) == ("completed", 4, 1, 3, 0)
        assert alice.show(retried)["status"] == "queued"
        assert alice.show(failed_again)["status"] == "failed"

    @pytest.mark.parametrize("action", ["retry", "cancel"])
    def test_what_changes_just_before_it_is_chosen_is_changed(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver, action: str
    ) -> None:
        actor = Actor(admin.id, None, "", None)
        with sessions.begin() as session:
            session.execute(text("SELECT now()"))  # which is the time of the operation
            if action == "retry":
                add_failed(sessions, alice.id, 1)
            else:
                alice.submit()
            wanted = OperationFilter()
            operation_id = operations.begin(session, Action(action), wanted, {}, actor, expected=1)
        run(driver)
        assert counts(admin, operation_id) == ("completed", 1, 1, 0, 0)

    def test_budgets_apply_and_the_backlog_limit_does_not(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, make_driver: Callable[..., OperationDriver]
    ) -> None:
        add_failed(sessions, alice.id, 5, reserved=30)
        operation_id = begin(admin, "retry")
        run(make_driver(user_monthly_tokens=100, user_backlog_limit=1))
        assert counts(admin, operation_id) == ("completed", 5, 3, 2, 0)

    def test_the_running_limit_of_users_applies(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, make_driver: Callable[..., OperationDriver]
    ) -> None:
        add_failed(sessions, alice.id, 5)
        begin(admin, "retry")
        run(make_driver(user_running_limit=2))
        with sessions() as session:
            assert session.scalar(text("SELECT count(*) FROM prompts WHERE turn IS NOT NULL")) == 2

    def test_prompts_of_removed_models_are_skipped(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver
    ) -> None:
        add_failed(sessions, alice.id, 2, route="gone")
        operation_id = begin(admin, "retry")
        run(driver)
        assert counts(admin, operation_id) == ("completed", 2, 0, 2, 0)


class TestInterruption:
    """Drivers are killed: what they have not committed did not happen, and another goes on."""

    @pytest.fixture(autouse=True)
    def _small(self, small_groups: None) -> None:
        """Many groups."""

    def test_each_prompt_is_retried_once_although_drivers_are_killed(
        self,
        admin: ApiUser,
        alice: ApiUser,
        bob: ApiUser,
        sessions: Sessions,
        driver: OperationDriver,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        ids = add_failed(sessions, alice.id, 140) + add_failed(sessions, bob.id, 60)
        operation_id = begin(admin, "retry")
        do_group, calls = steps.do_group, 0

        def dying(*arguments: object) -> object:
            """Do a group; each third process dies before its commit."""
            nonlocal calls
            result, calls = do_group(*arguments), calls + 1
            if calls % 3 == 0:
                raise SystemExit
            return result

        monkeypatch.setattr(steps, "do_group", dying)
        kills = 0
        while show(admin, operation_id)["status"] == "running":
            try:
                run(driver)
            except SystemExit:
                kills += 1
            assert show(admin, operation_id)["changed"] == statuses(sessions).get("queued", 0)
            lapse(sessions)
        assert kills >= 5
        assert counts(admin, operation_id) == ("completed", 200, 200, 0, 0)
        assert audited(admin, "prompts.retried") == {"alice": 140, "bob": 60}
        with sessions() as session:
            retried = session.execute(text("SELECT id, turn, attempt_limit - attempt FROM prompts ORDER BY id")).all()
            rows = session.scalars(text("SELECT prompt_id FROM operation_prompts WHERE outcome = 'changed'")).all()
        assert sorted(rows) == ids == [row.id for row in retried]
        assert len({(row.turn, row.id) for row in retried}) == 200
        assert {row[2] for row in retried} == {driver._rules.attempts}

    def test_a_driver_whose_lease_has_lapsed_changes_nothing(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver
    ) -> None:
        add_failed(sessions, alice.id, 25)
        operation_id = begin(admin, "retry")
        lease = timedelta(minutes=1)
        with sessions.begin() as session:
            late = steps.claim(session, lease)
        lapse(sessions)
        with sessions.begin() as session:
            present = steps.claim(session, lease)
        with pytest.raises(steps.OperationLostError), sessions.begin() as session:
            steps.do_group(session, late, driver._rules, lease)
        assert counts(admin, operation_id) == ("running", 25, 0, 0, 0)
        assert statuses(sessions) == {"failed": 25}
        with sessions.begin() as session:
            steps.do_group(session, present, driver._rules, lease)
        lapse(sessions)
        run(driver)
        assert counts(admin, operation_id) == ("completed", 25, 25, 0, 0)
        assert audited(admin, "prompts.retried") == {"alice": 25}

    def test_a_running_operation_is_left_to_its_driver(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver
    ) -> None:
        add_failed(sessions, alice.id, 1)
        begin(admin, "retry")
        with sessions.begin() as session:
            steps.claim(session, timedelta(minutes=1))
        assert not driver.step()


class TestCancel:
    def test_all_prompts_that_match_are_cancelled(
        self, admin: ApiUser, alice: ApiUser, bob: ApiUser, sessions: Sessions, driver: OperationDriver
    ) -> None:
        ids = [alice.submit(), alice.submit()]
        kept = bob.submit()
        with sessions.begin() as session:
            processing = "UPDATE prompts SET status = 'processing', attempt = 1, turn = NULL WHERE id = :id"
            session.execute(text(processing), {"id": ids[0]})
        operation_id = begin(admin, "cancel", user=alice.id)
        run(driver)
        assert counts(admin, operation_id) == ("completed", 2, 2, 0, 0)
        shown = [alice.show(each) for each in ids]
        assert [each["status"] for each in shown] == ["cancelled"] * 2
        assert {each["error"] for each in shown} == {"An operator has cancelled it."}
        assert bob.show(kept)["status"] == "queued"
        assert audited(admin, "prompts.cancelled") == {"alice": 2}
        with sessions() as session:
            feed = "SELECT seq, change FROM feed WHERE user_id = :user_id ORDER BY seq"
            assert session.execute(text(feed), {"user_id": alice.id}).all() == [(1, "cancelled"), (2, "cancelled")]

    def test_only_queued_prompts_are_cancelled_if_that_is_asked_for(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions
    ) -> None:
        alice.submit()
        processing = alice.submit()
        with sessions.begin() as session:
            session.execute(text("UPDATE prompts SET status = 'processing' WHERE id = :id"), {"id": processing})
        assert [count(admin, "cancel", **wanted) for wanted in ({}, {"status": "queued"})] == [2, 1]

    def test_prompts_that_ended_or_were_retried_since_it_began_are_left_alone(
        self, admin: ApiUser, alice: ApiUser, driver: OperationDriver, worker: Pipeline
    ) -> None:
        completed, retried = alice.submit(), alice.submit()
        operation_id = begin(admin, "cancel")
        alice.post(f"/prompts/{retried}/cancel/")
        alice.post(f"/prompts/{retried}/retry/")
        worker.process(1)
        run(driver)
        assert counts(admin, operation_id) == ("completed", 2, 0, 2, 0)
        assert [alice.show(each)["status"] for each in (completed, retried)] == ["completed", "queued"]


class TestUndo:
    def test_retried_prompts_that_no_worker_has_taken_are_as_before(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver, worker: Pipeline
    ) -> None:
        ids = add_failed(sessions, alice.id, 4)
        before = [alice.show(each) for each in ids]
        operation_id = begin(admin, "retry")
        run(driver)
        worker.process(1)
        alice.post(f"/prompts/{ids[1]}/cancel/")
        alice.post(f"/prompts/{ids[1]}/retry/")  # that is its user's retry, not the operator's
        assert admin.post(f"/admin/operations/{operation_id}/undo/").json["status"] == "undoing"
        run(driver)
        assert counts(admin, operation_id) == ("undone", 4, 4, 0, 2)
        after = [alice.show(each) for each in ids]
        assert [each["status"] for each in after] == ["completed", "queued", "failed", "failed"]
        assert after[2:] == before[2:]
        assert audited(admin, "prompts.retry_undone") == {"alice": 2}
        assert_problem(admin.post(f"/admin/operations/{operation_id}/undo/"), 409)

    def test_prompts_that_are_not_yet_retried_stay_failed(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver, small_groups: None
    ) -> None:
        add_failed(sessions, alice.id, 25)
        operation_id = begin(admin, "retry")
        lease = timedelta(minutes=1)
        with sessions.begin() as session:
            held = steps.claim(session, lease)
        with sessions.begin() as session:
            steps.do_group(session, held, driver._rules, lease)
        admin.post(f"/admin/operations/{operation_id}/undo/")
        with pytest.raises(steps.OperationLostError), sessions.begin() as session:
            steps.do_group(session, held, driver._rules, lease)
        run(driver)
        assert counts(admin, operation_id) == ("undone", 25, 10, 0, 10)
        assert statuses(sessions) == {"failed": 25}

    def test_an_undone_cancel_cancels_no_more_and_what_was_cancelled_can_be_retried(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver, monkeypatch
    ) -> None:
        ids = [alice.submit() for _ in range(4)]
        monkeypatch.setattr(steps, "GROUP", 2)
        operation_id = begin(admin, "cancel")
        lease = timedelta(minutes=1)
        with sessions.begin() as session:
            held = steps.claim(session, lease)
        with sessions.begin() as session:
            steps.do_group(session, held, driver._rules, lease)
        assert admin.post(f"/admin/operations/{operation_id}/undo/").json["status"] == "undone"
        run(driver)
        assert [alice.show(each)["status"] for each in ids] == ["cancelled"] * 2 + ["queued"] * 2
        begin(admin, "retry", status="cancelled", operation=operation_id)
        run(driver)
        assert [alice.show(each)["status"] for each in ids] == ["queued"] * 4

    def test_a_line_of_a_batch_that_has_ended_is_its_line_again(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver
    ) -> None:
        (line,) = add_failed(sessions, alice.id, 1)
        batch = text("SELECT batch_id FROM prompts WHERE id = :id")
        with sessions.begin() as session:
            session.execute(text("UPDATE prompts SET batch_id = 7, batch_line = 1 WHERE id = :id"), {"id": line})
        operation_id = begin(admin, "retry")
        run(driver)
        with sessions() as session:
            assert session.scalar(batch, {"id": line}) is None
        admin.post(f"/admin/operations/{operation_id}/undo/")
        run(driver)
        with sessions() as session:
            assert session.scalar(batch, {"id": line}) == 7


def test_an_invalid_operation_is_400_and_says_which_field(admin: ApiUser) -> None:
    invalid = [
        ({"action": "retry"}, "expected_count"),
        ({"action": "burn", "expected_count": 1}, "action"),
        ({"action": "retry", "filter": {"status": "queued"}, "dry_run": True}, "filter.status"),
        ({"action": "cancel", "filter": {"status": "failed"}, "dry_run": True}, "filter.status"),
        ({"action": "retry", "filter": {"batch": "7"}, "dry_run": True}, "filter.batch"),
        ({"action": "retry", "filter": {"colour": "red"}, "dry_run": True}, "filter.colour"),
        ({"action": "retry", "filter": {"ids": []}, "dry_run": True}, "filter.ids"),
        ({"action": "retry", "filter": {"since": "noon"}, "dry_run": True}, "filter.since"),
        ({"action": "retry", "filter": {"error": "a\0"}, "dry_run": True}, "filter.error"),
        ({"action": "retry", "expected_count": -1}, "expected_count"),
    ]
    problems = [assert_problem(admin.post("/admin/operations/", json=body), 400) for body, _ in invalid]
    assert [[each["field"] for each in problem["errors"]] for problem in problems] == [[field] for _, field in invalid]


def test_operations_are_listed_newest_first_in_pages(admin: ApiUser, alice: ApiUser, sessions: Sessions) -> None:
    add_failed(sessions, alice.id, 1)
    made = [begin(admin, "retry") for _ in range(3)]
    seen, path = [], "/admin/operations/?limit=2"
    while path:
        response = admin.get(path)
        seen += [each["id"] for each in response.json]
        path = response.headers.get("Link", "").partition(">")[0].removeprefix("<")
    assert seen == made[::-1]


@pytest.mark.parametrize("path", ["operations/99/", "operations/99/undo/"])
def test_an_unknown_operation_is_404(admin: ApiUser, path: str) -> None:
    assert_problem(admin.call("POST" if "undo" in path else "GET", f"/admin/{path}"), 404)


def test_an_operation_has_no_prompts_of_deleted_accounts(
    admin: ApiUser, alice: ApiUser, bob: ApiUser, sessions: Sessions, driver: OperationDriver
) -> None:
    add_failed(sessions, alice.id, 2)
    add_failed(sessions, bob.id, 2)
    admin.delete(f"/admin/users/{alice.id}/")
    operation_id = begin(admin, "retry")
    admin.delete(f"/admin/users/{bob.id}/")
    run(driver)
    assert counts(admin, operation_id) == ("completed", 2, 0, 2, 0)


def test_old_operations_are_deleted_and_their_acts_stay_in_the_audit_trail(
    admin: ApiUser, alice: ApiUser, sessions: Sessions, driver: OperationDriver
) -> None:
    add_failed(sessions, alice.id, 1)
    begin(admin, "retry")
    run(driver)
    for kept, retention in ((1, timedelta(days=1)), (0, timedelta(0))):
        with sessions.begin() as session:
            operations.purge(session, retention)
        assert len(admin.get("/admin/operations/").json) == kept
    assert audited(admin, "prompts.retried") == {"alice": 1}
