"""The caller's account: who one is, a new password, one's logins."""

from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import select, text
from werkzeug.test import TestResponse

from api.auth.principal import KeyGrant, Principal
from api.services import Services
from shared.accounts import users
from shared.db.engine import Sessions
from shared.db.models import ApiKey, AuditEntry, Scope
from tests.support.client import PASSWORD, ApiUser, assert_problem
from tests.support.processes import RemoteUser
from tests.support.servers import wait_until

NEW_PASSWORD = "battery staple, correct"


def change_password(user: ApiUser, current: str = PASSWORD, new: str = NEW_PASSWORD) -> TestResponse:
    return user.post("/account/password/", json={"current_password": current, "password": new})


def log_in(app: Flask, password: str, username: str = "alice") -> TestResponse:
    return app.test_client().post("/login/", json={"username": username, "password": password})


@pytest.fixture
def by_key(services: Services, alice: ApiUser):
    """Alice, who has authenticated by an API key with these scopes."""
    wait_until(lambda: services.token_cache._valid_until > 0)

    def make(*scopes: Scope) -> ApiUser:
        user, key = alice.at(alice._client.application), KeyGrant(7, frozenset(scopes), monthly_tokens=100)
        user.tokens = {"access": f"pw_{'_'.join(scopes)}"}
        principal = Principal(alice.id, "alice", None, float("inf"), key=key)
        services.token_cache.remember(user.tokens["access"], principal, services.token_cache.version)
        return user

    return make


class TestAccount:
    def test_get_account_shows_the_caller_and_the_limits(self, alice: ApiUser) -> None:
        account = alice.get("/account/").json
        created_at = account.pop("created_at")
        assert created_at.endswith("Z")
        assert account == {
            "id": alice.id,
            "username": "alice",
            "is_admin": False,
            "is_viewer": False,
            "has_password": True,
            "authenticated_by": "login",
            "key": None,
            "limits": {
                "prompt_rate_limit": "1000/second",
                "user_backlog_limit": 1_000,
                "user_running_limit": None,
                "user_socket_limit": 100,
                "user_wait_limit": 100,
                "user_search_limit": 4,
                "user_monthly_tokens": None,
            },
        }

    def test_an_api_key_that_may_read_gets_the_account_and_its_own_limits(self, by_key) -> None:
        account = by_key(Scope.PROMPTS_READ).get("/account/").json
        assert account["authenticated_by"] == "api_key"
        assert account["key"] == {
            "id": 7,
            "scopes": ["prompts:read"],
            "models": None,
            "rate_limit": None,
            "monthly_tokens": 100,
        }

    def test_an_api_key_that_may_only_write_gets_neither_account_nor_export(self, by_key) -> None:
        for path in ("/account/", "/account/export/"):
            assert_problem(by_key(Scope.PROMPTS_WRITE).get(path), 403)

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("POST", "/account/password/", {"current_password": PASSWORD, "password": NEW_PASSWORD}),
            ("DELETE", "/account/", {"password": PASSWORD}),
            ("GET", "/account/logins/", None),
            ("DELETE", f"/account/logins/{UUID(int=1)}/", None),
        ],
    )
    def test_an_api_key_may_not_change_the_account_or_see_its_logins(
        self, alice: ApiUser, by_key, method: str, path: str, body: dict | None
    ) -> None:
        assert_problem(by_key(*Scope).call(method, path, json=body), 403)
        assert change_password(alice).status_code == 204

    @pytest.mark.parametrize("path", ["/account/", "/account/export/", "/account/logins/"])
    def test_without_a_token_the_account_is_401(self, app: Flask, path: str) -> None:
        assert_problem(app.test_client().get(path), 401)


class TestPassword:
    def test_a_new_password_answers_204_and_other_logins_end(self, app: Flask, alice: ApiUser) -> None:
        other = ApiUser(app, "alice", is_new=False)
        assert other.get("/prompts/").status_code == 200
        response = change_password(alice)
        assert (response.status_code, response.data) == (204, b"")
        assert_problem(other.get("/prompts/"), 401)
        refreshed = app.test_client().post("/auth/refresh/", json={"refresh": other.tokens["refresh"]})
        assert_problem(refreshed, 401)
        assert_problem(log_in(app, PASSWORD), 401)
        assert log_in(app, NEW_PASSWORD).status_code == 200

    def test_the_login_that_changes_the_password_stays(self, app: Flask, alice: ApiUser) -> None:
        change_password(alice)
        assert alice.get("/prompts/").status_code == 200
        refreshed = app.test_client().post("/auth/refresh/", json={"refresh": alice.tokens["refresh"]})
        assert refreshed.status_code == 200

    def test_sockets_of_other_logins_are_closed_with_4401_and_the_callers_own_stays(
        self, app_url: str, alice: ApiUser
    ) -> None:
        mine, other = (RemoteUser(app_url, "alice", is_new=False) for _ in range(2))
        with mine.join() as my_socket, other.join() as other_socket:
            assert my_socket.receive()["type"] == other_socket.receive()["type"] == "connected"
            alice.tokens = mine.tokens
            assert change_password(alice).status_code == 204
            assert other_socket.close_code() == 4401
            assert my_socket.ask({"type": "ping"})["type"] == "pong"

    def test_api_keys_stay(self, alice: ApiUser, sessions: Sessions) -> None:
        alice.create_key()
        change_password(alice)
        with sessions() as session:
            assert session.scalars(select(ApiKey)).one().revoked_at is None

    def test_logins_of_other_users_stay(self, alice: ApiUser, bob: ApiUser) -> None:
        change_password(alice)
        assert bob.get("/prompts/").status_code == 200

    def test_a_wrong_current_password_is_400_and_changes_nothing(self, app: Flask, alice: ApiUser) -> None:
        problem = assert_problem(change_password(alice, "a wrong password"), 400)
        assert problem["errors"] == [{"field": "current_password", "message": "The password is wrong."}]
        assert log_in(app, PASSWORD).status_code == 200

    def test_wrong_current_passwords_count_as_failed_logins(self, app: Flask, alice: ApiUser) -> None:
        assert [change_password(alice, f"guess {i}").status_code for i in range(10)] == [400] * 10
        assert_problem(change_password(alice, "guess 11"), 429)

    @pytest.mark.parametrize("new", ["short", "a" * 1025, "null\0null"])
    def test_a_new_password_that_is_not_allowed_is_400(self, app: Flask, alice: ApiUser, new: str) -> None:
        problem = assert_problem(change_password(alice, new=new), 400)
        assert [error["field"] for error in problem["errors"]] == ["password"]
        assert log_in(app, PASSWORD).status_code == 200

    def test_of_two_changes_from_the_same_password_one_is_refused(self, alice: ApiUser, sessions: Sessions) -> None:
        with sessions() as session:
            user = session.get_one(users.User, alice.id)
        changes = []
        for _ in range(2):
            with sessions.begin() as session:
                changes.append(users.change_password(session, user, "a hash", keep=None))
        assert changes == [True, False]

    def test_a_new_password_is_in_the_audit_trail(self, alice: ApiUser, sessions: Sessions) -> None:
        change_password(alice)
        assert _newest_audit_entry(sessions) == ("password.changed", alice.id, alice.id)


class TestLogins:
    def test_the_list_has_address_user_agent_and_times_of_each_login(self, app: Flask, alice: ApiUser) -> None:
        body = {"username": "alice", "password": PASSWORD}
        phone = app.test_client().post("/login/", json=body, headers={"User-Agent": "Phone/1.0 " + "x" * 500})
        assert phone.status_code == 200
        newest, first = alice.get("/account/logins/").json
        assert (newest["user_agent"], len(newest["user_agent"])) == (("Phone/1.0 " + "x" * 500)[:200], 200)
        assert newest["created_at"] <= newest["last_used_at"] < newest["expires_at"]
        assert (newest["address"], newest["is_current"]) == ("127.0.0.1", False)
        assert first["is_current"]

    def test_a_refresh_records_from_where_a_login_is_used(self, app: Flask, alice: ApiUser) -> None:
        before = alice.get("/account/logins/").json[0]
        headers = {"User-Agent": "Tablet/2.0"}
        body = {"refresh": alice.tokens["refresh"]}
        alice.tokens = app.test_client().post("/auth/refresh/", json=body, headers=headers).json
        (after,) = alice.get("/account/logins/").json
        assert (after["id"], after["created_at"]) == (before["id"], before["created_at"])
        assert after["user_agent"] == "Tablet/2.0"
        assert after["last_used_at"] > before["last_used_at"]

    def test_a_login_of_an_earlier_release_is_listed_without_the_unknown_fields(
        self, alice: ApiUser, sessions: Sessions
    ) -> None:
        unknown = "created_at = NULL, last_used_at = NULL, address = NULL, user_agent = NULL"
        with sessions.begin() as session:
            session.execute(text(f"UPDATE token_families SET {unknown}"))  # noqa: S608
        (login,) = alice.get("/account/logins/").json
        names = ("created_at", "last_used_at", "address", "user_agent")
        assert [login[name] for name in names] == [None] * 4

    def test_a_login_that_was_ended_is_refused_and_not_listed(self, app: Flask, alice: ApiUser) -> None:
        other = ApiUser(app, "alice", is_new=False)
        (ended,) = [each["id"] for each in alice.get("/account/logins/").json if not each["is_current"]]
        response = alice.delete(f"/account/logins/{ended}/")
        assert (response.status_code, response.data) == (204, b"")
        assert_problem(other.get("/prompts/"), 401)
        assert [each["is_current"] for each in alice.get("/account/logins/").json] == [True]
        assert_problem(alice.delete(f"/account/logins/{ended}/"), 404)

    def test_ending_ones_own_login_is_a_logout(self, alice: ApiUser) -> None:
        (mine,) = alice.get("/account/logins/").json
        assert alice.delete(f"/account/logins/{mine['id']}/").status_code == 204
        assert_problem(alice.get("/prompts/"), 401)

    def test_the_login_of_another_user_is_404_and_stays(self, alice: ApiUser, bob: ApiUser) -> None:
        (login,) = bob.get("/account/logins/").json
        assert_problem(alice.delete(f"/account/logins/{login['id']}/"), 404)
        assert bob.get("/prompts/").status_code == 200

    def test_a_path_without_a_valid_id_is_404(self, alice: ApiUser) -> None:
        assert_problem(alice.delete("/account/logins/1/"), 404)

    def test_the_list_has_the_hundred_logins_that_were_used_last(self, alice: ApiUser, sessions: Sessions) -> None:
        copies = "SELECT gen_random_uuid(), user_id, current, expires_at FROM token_families, generate_series(1, 120)"
        with sessions.begin() as session:
            session.execute(text(f"INSERT INTO token_families (id, user_id, current, expires_at) {copies}"))
        assert len(alice.get("/account/logins/").json) == 100

    def test_an_ended_login_is_in_the_audit_trail(self, alice: ApiUser, sessions: Sessions) -> None:
        (mine,) = alice.get("/account/logins/").json
        alice.delete(f"/account/logins/{mine['id']}/")
        assert _newest_audit_entry(sessions) == ("login.ended", alice.id, alice.id)


def _newest_audit_entry(sessions: Sessions) -> tuple[str, int, int]:
    with sessions() as session:
        entry = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        return entry.action, entry.actor_id, entry.user_id
