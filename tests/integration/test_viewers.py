"""Viewers see what admins see, and change nothing; and the worker hosts that both see."""

from uuid import uuid4

from click.testing import CliRunner
from flask import Flask
from sqlalchemy import text

from api.users_cli import main as users_cli
from shared.db.engine import Sessions
from shared.db.models import Scope
from shared.operators import worker_hosts
from shared.operators.worker_hosts import Presence
from shared.settings import Settings
from tests.support.client import PASSWORD, ApiUser, assert_problem
from tests.support.servers import environment_of, wait_until
from worker.maintenance.presence import PresenceWriter


def routes(app: Flask) -> list[tuple[str, str]]:
    """Each admin route that reads, and that changes."""
    paths = app.test_client().get("/openapi.json").json["paths"]
    ids = {"user_id": 999, "key_id": 999, "operation_id": 999, "model": "none"}
    found = [
        (method.upper(), path.format(**ids)) for path in paths if path.startswith("/admin/") for method in paths[path]
    ]
    assert len(found) == 19
    return found


def test_a_viewer_reads_every_admin_route_and_may_change_none(app: Flask, viewer: ApiUser) -> None:
    for method, path in routes(app):
        response = viewer.call(method, path, json=None if method == "GET" else {})
        if method == "GET":
            assert response.status_code in (200, 404), (path, response.text)
        else:
            assert "needs the scope admin," in assert_problem(response, 403)["detail"], path


def test_what_a_viewer_looks_at_is_audited(viewer: ApiUser, admin: ApiUser) -> None:
    viewer.get("/admin/queue/")
    [entry, *_] = admin.get("/admin/audit/").json
    assert (entry["actor"]["username"], entry["action"]) == ("vera", "queue.viewed")
    for user_id in (viewer.id, admin.id):
        viewer.get(f"/admin/keys/?user={user_id}")
    entries = admin.get("/admin/audit/").json
    assert [(each["action"], each["user"]["id"]) for each in entries[:2]] == [
        ("keys.viewed", admin.id),
        ("keys.viewed", viewer.id),
    ]


def test_a_key_with_the_scope_admin_read_reads_and_changes_nothing(
    admin: ApiUser, viewer: ApiUser, alice: ApiUser
) -> None:
    for user in (admin, viewer):
        reader = user.with_key(scopes=[Scope.ADMIN_READ])
        assert reader.get("/admin/queue/").status_code == 200
        assert_problem(reader.post(f"/admin/users/{alice.id}/end-logins/"), 403)
        assert_problem(user.with_key().get("/admin/queue/"), 403)
    for scope in (Scope.ADMIN_READ, Scope.ADMIN):
        assert_problem(alice.post("/auth/keys/", json={"name": "n", "scopes": [scope]}), 403)
    assert_problem(viewer.post("/auth/keys/", json={"name": "n", "scopes": [Scope.ADMIN]}), 403)
    assert admin.with_key(scopes=[Scope.ADMIN]).get("/admin/queue/").status_code == 200


def test_the_command_line_makes_viewers_and_users_again(alice: ApiUser, settings: Settings) -> None:
    environment = environment_of(settings) | {"NEW_PASSWORD": PASSWORD}

    def cli(*arguments: str) -> str:
        return CliRunner().invoke(users_cli, arguments, env=environment).output

    assert cli("create", "vic", "--viewer") == "Created vic (id 2, viewer).\n"
    assert_problem(alice.get("/admin/queue/"), 403)
    assert cli("set-viewer", "ALICE") == "ALICE is a viewer.\n"
    assert [line.split("\t")[1::2] for line in cli("list").splitlines()] == [["alice", "viewer"], ["vic", "viewer"]]
    wait_until(lambda: alice.get("/admin/queue/").status_code == 200)
    assert alice.get("/account/").json["is_viewer"] is True
    assert cli("set-viewer", "alice", "--remove") == "alice is no longer a viewer.\n"
    wait_until(lambda: alice.get("/admin/queue/").status_code == 403)


def test_an_admin_makes_viewers_and_each_change_is_audited(admin: ApiUser, alice: ApiUser) -> None:
    path = f"/admin/users/{alice.id}/"
    shown = admin.call("PATCH", path, json={"is_viewer": True}).json
    assert (shown["is_viewer"], shown["is_admin"]) == (True, False)
    assert alice.get("/admin/queue/").status_code == 200
    admin.call("PATCH", path, json={"is_viewer": False, "is_admin": True})
    admin.call("PATCH", path, json={})
    acts = [each["action"] for each in admin.get(f"/admin/audit/?user={alice.id}").json]
    assert acts == ["viewer.removed", "admin.granted", "viewer.granted"]


def test_worker_hosts_are_seen_and_lost_and_forgotten(viewer: ApiUser, sessions: Sessions) -> None:
    writer = PresenceWriter(sessions, "threads", 200, ["default"])
    writer.round()
    writer.round()
    [host] = viewer.get("/admin/workers/").json
    assert (host["pool"], host["concurrency"], host["models"]) == ("threads", 200, ["default"])
    assert (host["active_tasks"], host["is_lost"]) == (0, False)
    age = text("UPDATE workers SET seen_at = seen_at - CAST(:age AS interval)")
    for seconds, lost in (("1 minute", [True]), ("10 minutes", [])):
        with sessions.begin() as session:
            session.execute(age, {"age": seconds})
        assert [each["is_lost"] for each in viewer.get("/admin/workers/").json] == lost
    with sessions.begin() as other:  # a host that comes back writes its row just now
        other.execute(text("UPDATE workers SET active_tasks = 1"))
        with sessions.begin() as session:
            session.execute(text("SET LOCAL lock_timeout = '1s'"))
            worker_hosts.write(session, Presence(uuid4(), "b", 1, "1", "threads", 1, [], 0))
    PresenceWriter(sessions, "prefork", 2, ["default"], uuid4()).round()
    with sessions() as session:
        assert session.scalar(text("SELECT count(*) FROM workers")) == 2
