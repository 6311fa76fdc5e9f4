"""What admins see and change, and the audit trail of it. (Lists of a large installation: `test_admin_plans.py`.)"""

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from api.services import Services
from api.users_cli import main as users_cli
from shared.accounts import deletion
from shared.db.engine import Sessions
from shared.db.models import AuditEntry, Usage
from shared.errors import ProviderError
from shared.settings import Settings
from tests.support.client import PASSWORD, ApiUser, assert_problem
from tests.support.providers import Script
from tests.support.servers import MAX_WAIT_SECONDS, environment_of, wait_until
from tests.support.usage import add_key
from worker.pipeline import Pipeline

SECRET = "xylophone-confession"


@pytest.fixture
def cli(settings: Settings) -> Callable[..., Result]:
    """Run `promptwire-users` with these arguments."""
    environment = environment_of(settings) | {"NEW_PASSWORD": PASSWORD}
    return lambda *arguments: CliRunner().invoke(users_cli, arguments, env=environment)


@pytest.fixture
def admin(app: Flask, cli: Callable[..., Result]) -> ApiUser:
    """The user with the id 1."""
    assert cli("create", "root", "--admin").output == "Created root (id 1, admin).\n"
    user = ApiUser(app, "root", is_new=False)
    user.id = 1
    return user


def grant(cli: Callable[..., Result], *arguments: str) -> None:
    assert cli("set-admin", *arguments).exit_code == 0


def patch(caller: ApiUser, user_id: int, *, is_admin: bool):
    return caller.call("PATCH", f"/admin/users/{user_id}/", json={"is_admin": is_admin})


def acts(admin: ApiUser, **parameters: object) -> list[tuple]:
    """The audit trail, oldest first: who did what to whom."""
    shown = admin.get("/admin/audit/", query_string=parameters).json[::-1]
    return [
        (each["actor"] and each["actor"]["username"], each["action"], each["user"] and each["user"]["username"])
        for each in shown
    ]


def waiting(sessions: Sessions) -> int:
    """How many transactions wait for a lock."""
    ours = "datname = current_database() AND wait_event_type = 'Lock'"
    with sessions() as session:
        return len(session.execute(text("SELECT FROM pg_stat_activity WHERE " + ours)).all())


def add_usage(sessions: Sessions, user: ApiUser, tokens: int, *, key_id: int = 0, route: str = "default") -> None:
    used = {"user_id": user.id, "key_id": key_id, "route": route, "prompts": 1, "prompt_tokens": tokens, "cost": 0.5}
    with sessions.begin() as session:
        session.execute(insert(Usage).values(day=text("now()::date"), completion_tokens=1, **used))


class TestBecomingAnAdmin:
    def test_the_command_line_creates_admins(self, admin: ApiUser) -> None:
        assert admin.get("/admin/users/").status_code == 200

    def test_the_command_line_makes_a_user_an_admin_and_an_admin_a_user(
        self, alice: ApiUser, cli: Callable[..., Result]
    ) -> None:
        assert cli("set-admin", "ALICE").output == "ALICE is an admin.\n"
        assert cli("list").output.split("\t")[-1] == "admin\n"
        assert cli("set-admin", "alice", "--remove").output == "alice is no longer an admin.\n"
        assert "There is no user 'nobody'" in str(cli("set-admin", "nobody").exception)

    def test_it_takes_effect_in_every_process_without_another_login(
        self, make_app, alice: ApiUser, cli: Callable[..., Result]
    ) -> None:
        processes = [alice, *(alice.at(make_app()[0]) for _ in range(2))]
        assert [each.get("/admin/users/").status_code for each in processes] == [403] * 3
        grant(cli, "alice")
        wait_until(lambda: [each.get("/admin/users/").status_code for each in processes] == [200] * 3)
        grant(cli, "alice", "--remove")
        wait_until(lambda: [each.get("/admin/users/").status_code for each in processes] == [403] * 3)
        assert alice.get("/prompts/").status_code == 200  # the login goes on

    def test_a_process_that_missed_the_announcement_finds_the_change_in_the_database(
        self, services: Services, alice: ApiUser, sessions: Sessions
    ) -> None:
        assert alice.get("/admin/users/").status_code == 403
        with sessions.begin() as session:
            session.execute(text("UPDATE users SET is_admin = true, admin_changed_at = now()"))
        wait_until(lambda: alice.get("/admin/users/").status_code == 200)


class TestUsers:
    def test_admins_see_all_users_with_their_counts_and_tokens_of_this_month(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions
    ) -> None:
        alice.submit(SECRET)
        add_key(sessions, alice.id)
        add_usage(sessions, alice, 40)
        add_usage(sessions, alice, 60, route="other")
        with sessions.begin() as session:
            old = Usage(user_id=alice.id, day=text("now()::date - 40"), key_id=0, route="default", prompt_tokens=7)
            session.add(old)
        response = admin.get("/admin/users/")
        assert [each["username"] for each in response.json] == ["alice", "root"]
        shown = response.json[0]
        assert shown.pop("created_at").endswith("Z")
        assert shown == {
            "id": alice.id,
            "username": "alice",
            "is_admin": False,
            "is_viewer": False,
            "logins": 1,
            "keys": 1,
            "unfinished": 1,
            "has_password": True,
            "has_identity": False,
            "this_month": {
                "prompts": 2,
                "prompt_tokens": 100,
                "completion_tokens": 2,
                "total_tokens": 102,
                "cost": 1.0,
            },
        }
        assert SECRET not in response.text
        assert admin.get(f"/admin/users/{alice.id}/").json["this_month"] == shown["this_month"]

    def test_the_list_of_users_is_paged_without_a_gap(self, app: Flask, admin: ApiUser, cli) -> None:
        for number in range(4):
            cli("create", f"user-{number}")
        seen, path = [], "/admin/users/?limit=2"
        while path:
            response = admin.get(path)
            seen += [each["username"] for each in response.json]
            path = response.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert seen == ["user-3", "user-2", "user-1", "user-0", "root"]

    @pytest.mark.parametrize(("typed", "count"), [("ALICE", 1), ("nobody", 0), ("a\0b", 0)])
    def test_a_user_is_found_by_name_in_any_case(self, admin: ApiUser, alice: ApiUser, typed: str, count: int) -> None:
        assert len(admin.get("/admin/users/", query_string={"username": typed}).json) == count

    def test_an_admin_makes_and_unmakes_admins(self, admin: ApiUser, alice: ApiUser) -> None:
        assert patch(admin, alice.id, is_admin=True).json["is_admin"] is True
        assert alice.get("/admin/users/").status_code == 200
        assert patch(admin, alice.id, is_admin=False).json["is_admin"] is False
        assert_problem(alice.get("/admin/users/"), 403)

    def test_when_two_admins_remove_each_other_one_stays_an_admin(
        self, admin: ApiUser, alice: ApiUser, sessions: Sessions
    ) -> None:
        assert admin.get("/admin/users/").status_code == 200
        with sessions.begin() as session:  # another process has just removed this one, and not announced it yet
            session.execute(text("UPDATE users SET is_admin = (username = 'alice')"))
        assert_problem(patch(admin, alice.id, is_admin=False), 403)
        assert alice.get("/admin/users/").status_code == 200

    def test_of_two_admins_who_delete_each_other_at_the_same_time_one_stays(
        self, admin: ApiUser, alice: ApiUser, cli: Callable[..., Result], sessions: Sessions
    ) -> None:
        grant(cli, "alice")
        deletions = [
            partial(admin.delete, f"/admin/users/{alice.id}/"),
            partial(alice.delete, f"/admin/users/{admin.id}/"),
        ]
        with sessions.begin() as session, ThreadPoolExecutor() as pool:
            session.execute(text("SELECT FROM users FOR UPDATE"))  # until both have been authenticated
            responses = [pool.submit(delete) for delete in deletions]
            wait_until(lambda: waiting(sessions) == 2)
            session.rollback()
            statuses = sorted(response.result(MAX_WAIT_SECONDS).status_code for response in responses)
        assert statuses == [204, 403]
        with sessions() as session:
            assert session.scalar(text("SELECT count(*) FROM users WHERE is_admin")) == 1

    def test_admins_cannot_lose_their_own_rights_nor_delete_themselves(self, admin: ApiUser) -> None:
        assert_problem(patch(admin, admin.id, is_admin=False), 409)
        assert_problem(admin.delete(f"/admin/users/{admin.id}/"), 409)
        assert admin.get("/admin/users/").status_code == 200

    def test_a_deleted_user_is_gone_at_once(self, app: Flask, admin: ApiUser, alice: ApiUser) -> None:
        assert admin.delete(f"/admin/users/{alice.id}/").status_code == 204
        assert_problem(alice.get("/prompts/"), 401)
        assert [each["username"] for each in admin.get("/admin/users/").json] == ["root"]
        assert_problem(admin.delete(f"/admin/users/{alice.id}/"), 404)

    def test_an_admin_ends_all_logins_of_a_user(self, admin: ApiUser, alice: ApiUser) -> None:
        assert admin.post(f"/admin/users/{alice.id}/end-logins/").status_code == 204
        assert_problem(alice.get("/prompts/"), 401)

    @pytest.mark.parametrize(("method", "path"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "end-logins/")])
    def test_an_unknown_user_is_404(self, admin: ApiUser, method: str, path: str) -> None:
        body = {"json": {"is_admin": True}} if method == "PATCH" else {}
        assert_problem(admin.call(method, f"/admin/users/999/{path}", **body), 404)


class TestKeys:
    def test_admins_see_all_keys_with_their_usage_and_never_the_key(
        self, admin: ApiUser, alice: ApiUser, bob: ApiUser, sessions: Sessions
    ) -> None:
        first, second = add_key(sessions, alice.id, name="first"), add_key(sessions, bob.id, name="second")
        add_usage(sessions, alice, 40, key_id=first)
        add_usage(sessions, alice, 2)
        shown = admin.get("/admin/keys/").json
        assert [(each["id"], each["user"]["username"], each["name"]) for each in shown] == [
            (second, "bob", "second"),
            (first, "alice", "first"),
        ]
        assert [each["this_month"]["prompt_tokens"] for each in shown] == [0, 40]
        assert not {"key", "key_hash"} & shown[0].keys()
        assert [each["id"] for each in admin.get(f"/admin/keys/?user={alice.id}").json] == [first]

    def test_an_admin_revokes_a_key_of_any_user(self, admin: ApiUser, alice: ApiUser, sessions: Sessions) -> None:
        key_id = add_key(sessions, alice.id)
        assert admin.delete(f"/admin/keys/{key_id}/").status_code == 204
        assert admin.get("/admin/keys/").json[0]["revoked_at"] is not None
        assert admin.get(f"/admin/users/{alice.id}/").json["keys"] == 0
        assert_problem(admin.delete(f"/admin/keys/{key_id}/"), 404)


class TestUsage:
    """`test_usage_report.py` has what these reports and those of `GET /usage/` have in common."""

    @pytest.fixture(autouse=True)
    def used(self, admin: ApiUser, alice: ApiUser, bob: ApiUser, sessions: Sessions) -> None:
        add_usage(sessions, alice, 40, key_id=add_key(sessions, alice.id))
        add_usage(sessions, alice, 2)
        add_usage(sessions, bob, 100, route="other")

    @pytest.mark.parametrize(
        ("by", "rows"),
        [
            ("model", [("other", 100), ("default", 42)]),
            ("user", [({"id": 3, "username": "bob"}, 100), ({"id": 2, "username": "alice"}, 42)]),
            ("key", [(None, 102), ({"id": 1, "name": "job", "prefix": "pw_12345678"}, 40)]),
        ],
    )
    def test_the_usage_of_all_users_adds_up_by_model_user_and_key(self, admin: ApiUser, by: str, rows: list) -> None:
        report = admin.get(f"/admin/usage/?by={by}").json
        assert [(row[by], row["prompt_tokens"]) for row in report["rows"]] == rows
        assert (report["by"], report["total"]["prompt_tokens"], report["total"]["cost"]) == (by, 142, 1.5)

    def test_the_usage_of_all_users_is_by_day_by_default(self, admin: ApiUser) -> None:
        report = admin.get("/admin/usage/").json
        assert report["rows"] == [{"day": report["until"], **report["total"]}]

    def test_the_usage_of_other_days_is_left_out(self, admin: ApiUser) -> None:
        assert admin.get("/admin/usage/?since=2020-01-01&until=2020-12-31").json["rows"] == []

    @pytest.mark.parametrize("query", ["since=0", "since=2026-13-01", "until=tomorrow", "by=moon"])
    def test_an_invalid_time_or_group_is_400(self, admin: ApiUser, query: str) -> None:
        assert_problem(admin.get(f"/admin/usage/?{query}"), 400)


class TestQueue:
    def test_the_queue_shows_what_waits_and_runs_by_model_and_by_user(
        self, admin: ApiUser, alice: ApiUser, bob: ApiUser, sessions: Sessions
    ) -> None:
        running, _, _ = (alice.submit(SECRET) for _ in range(3))
        bob.submit(SECRET)
        with sessions.begin() as session:
            claim = "UPDATE prompts SET status = 'processing', attempt = 1, turn = NULL WHERE id = :id"
            session.execute(text(claim), {"id": running})
            session.execute(text("UPDATE prompts SET queued_at = now() - interval '1 hour'"))
        response = admin.get("/admin/queue/")
        assert SECRET not in response.text
        shown = response.json
        [model] = shown["models"]
        assert (model["model"], model["user"], model["queued"], model["running"]) == ("default", None, 3, 1)
        assert 3600 <= model["oldest_waiting_seconds"] < 4200
        assert [(each["user"]["username"], each["queued"], each["running"]) for each in shown["users"]] == [
            ("alice", 2, 1),
            ("bob", 1, 0),
        ]
        [prompt] = shown["running"]
        assert (prompt["id"], prompt["user"]["username"], prompt["attempt"]) == (running, "alice", 1)

    def test_the_queue_shows_why_a_provider_is_paused(self, admin: ApiUser, sessions: Sessions) -> None:
        with sessions.begin() as session:
            session.execute(
                text(
                    "INSERT INTO routes (route, paused_until, pause_detail, failures) "
                    "VALUES ('default', now() + interval '1 hour', 'Connection refused', 3)"
                )
            )
        [provider] = admin.get("/admin/queue/").json["providers"]
        assert (provider["model"], provider["detail"], provider["failures"]) == ("default", "Connection refused", 3)
        assert provider["paused_until"] is not None


class TestFailures:
    def test_failures_are_grouped_by_error(
        self, admin: ApiUser, alice: ApiUser, bob: ApiUser, worker: Pipeline
    ) -> None:
        steps = [(alice, "no such model"), (bob, "no such model"), (alice, "refused")]
        for user, error in steps:
            newest = user.submit(SECRET)
            failing = Script(ProviderError(error, retryable=False))
            dataclasses.replace(worker, generator=failing).process(1)
        response = admin.get("/admin/failures/")
        assert SECRET not in response.text
        assert [(each["error"], each["count"], each["users"], each["model"]) for each in response.json] == [
            ("no such model", 2, 2, "default"),
            ("refused", 1, 1, "default"),
        ]
        assert response.json[1]["newest_prompt_id"] == newest

    def test_only_failures_since_a_time_are_counted(
        self, admin: ApiUser, alice: ApiUser, worker: Pipeline, sessions: Sessions
    ) -> None:
        alice.submit()
        dataclasses.replace(worker, generator=Script(ProviderError("no", retryable=False))).process(1)
        with sessions.begin() as session:
            session.execute(text("UPDATE feed SET at = at - interval '2 days'"))
        assert admin.get("/admin/failures/").json == []
        assert len(admin.get("/admin/failures/?since=2020-01-01T00:00:00Z").json) == 1
        assert_problem(admin.get("/admin/failures/?since=yesterday"), 400)


def test_admins_see_nothing_of_a_deleted_account_at_once(
    admin: ApiUser, alice: ApiUser, worker: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its purge, which may take a while. An error may quote a prompt."""
    monkeypatch.setattr(deletion, "MAX_CANCELLED", 0)  # as if there were too many
    alice.create_key(name=SECRET)
    _, running = alice.submit(), alice.submit()
    dataclasses.replace(worker, generator=Script(ProviderError(SECRET, retryable=False))).process(1)
    with worker.sessions.begin() as session:
        session.execute(text("UPDATE prompts SET status = 'processing' WHERE id = :id"), {"id": running})
    assert admin.delete(f"/admin/users/{alice.id}/").status_code == 204
    paths = ("users/", "keys/", "usage/?by=user", "usage/?by=key", "queue/", "failures/", "audit/")
    shown = {path: admin.get(f"/admin/{path}") for path in paths}
    for response in shown.values():
        assert response.status_code == 200
        assert not any(each in response.text for each in (SECRET, "alice", f"#{alice.id}"))
    assert shown["failures/"].json == []
    assert shown["queue/"].json["running"][0]["user"] == {"id": alice.id, "username": None}


class TestAudit:
    def test_every_act_of_an_admin_is_in_the_audit_trail(
        self, admin: ApiUser, alice: ApiUser, bob: ApiUser, sessions: Sessions
    ) -> None:
        key_id = add_key(sessions, alice.id)
        assert patch(admin, alice.id, is_admin=True).status_code == 200
        alice.post(f"/admin/users/{bob.id}/end-logins/")
        patch(admin, alice.id, is_admin=True)  # changes nothing
        patch(admin, alice.id, is_admin=False)
        admin.delete(f"/admin/keys/{key_id}/")
        admin.delete(f"/admin/users/{bob.id}/")
        assert acts(admin) == [
            (None, "user.created", "root"),
            ("root", "admin.granted", "alice"),
            ("alice", "logins.ended", None),
            ("root", "admin.removed", "alice"),
            ("root", "key.revoked", "alice"),
            ("root", "account.deleted", None),  # the names of deleted users are not kept
        ]
        assert [action for _, action, _ in acts(admin, user=alice.id)] == [
            "admin.granted",
            "admin.removed",
            "key.revoked",
        ]

    def test_what_an_admin_looks_at_is_in_the_audit_trail_once_an_hour(
        self, admin: ApiUser, alice: ApiUser, bob: ApiUser
    ) -> None:
        for path in ("users/", f"users/{alice.id}/", f"users/{bob.id}/", "keys/", "usage/", "queue/", "failures/"):
            for _ in range(2):
                assert admin.get(f"/admin/{path}").status_code == 200
        seen = [("root", f"{kind}.viewed", None) for kind in ("users", "keys", "usage", "queue", "failures")]
        seen += [("root", "user.viewed", "alice"), ("root", "user.viewed", "bob")]
        assert sorted(map(str, acts(admin)[1:])) == sorted(map(str, seen))  # the first created the admin

    def test_a_user_id_beyond_all_numbers_is_400(self, admin: ApiUser) -> None:
        assert_problem(admin.get(f"/admin/users/{2**63}/"), 400)

    def test_an_entry_says_from_where_and_with_which_request(self, admin: ApiUser, alice: ApiUser) -> None:
        path = f"/admin/users/{alice.id}/end-logins/"
        admin.post(path, headers={"X-Request-ID": "the-request"})
        newest, created = admin.get("/admin/audit/").json
        assert newest["actor"] == {"id": admin.id, "username": "root"}
        assert newest["user"] == {"id": alice.id, "username": "alice"}
        assert (newest["address"], newest["request_id"], newest["key_id"]) == ("127.0.0.1", "the-request", None)
        assert (created["actor"], created["address"], created["details"]) == (None, "command line", {"is_admin": True})

    def test_the_audit_trail_is_paged_without_a_gap(self, admin: ApiUser, alice: ApiUser) -> None:
        for _ in range(4):
            admin.post(f"/admin/users/{alice.id}/end-logins/")
        seen, path = [], f"/admin/audit/?limit=3&user={alice.id}"
        while path:
            response = admin.get(path)
            seen += [each["id"] for each in response.json]
            path = response.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert seen == sorted(seen, reverse=True)
        assert len(set(seen)) == 4

    @pytest.mark.parametrize("change", ["UPDATE audit SET action = ''", "DELETE FROM audit", "TRUNCATE audit"])
    def test_no_entry_can_be_changed_or_deleted(self, admin: ApiUser, sessions: Sessions, change: str) -> None:
        with pytest.raises(DBAPIError, match="append-only"), sessions.begin() as session:
            session.execute(text(change))
        assert len(acts(admin)) == 1

    def test_an_act_that_fails_leaves_no_entry(self, admin: ApiUser, sessions: Sessions) -> None:
        admin.delete("/admin/users/999/")
        with sessions() as session:
            assert [entry.action for entry in session.query(AuditEntry)] == ["user.created"]

    def test_the_command_line_is_audited_too(self, admin: ApiUser, alice: ApiUser, cli: Callable[..., Result]) -> None:
        grant(cli, "alice")
        cli("set-password", "alice")
        grant(cli, "alice", "--remove")
        cli("export", "alice")
        assert acts(admin, user=alice.id) == [
            (None, "admin.granted", "alice"),
            (None, "password.changed", "alice"),
            (None, "admin.removed", "alice"),
            (None, "account.exported", "alice"),
        ]


def test_every_admin_route_is_403_for_users_who_are_not_admins(app: Flask, alice: ApiUser) -> None:
    paths = app.test_client().get("/openapi.json").json["paths"]
    calls = [(method, path) for path in paths if path.startswith("/admin/") for method in paths[path]]
    assert len(calls) == 19
    for method, path in calls:
        url = path.format(user_id=alice.id, key_id=1, operation_id=1, model="default")
        body = {"json": {"is_admin": True}} if method == "patch" else {}
        problem = assert_problem(alice.call(method.upper(), url, **body), 403)
        assert problem.keys() == {"type", "title", "status", "detail"}
        assert "needs the scope admin" in json.dumps(problem)
