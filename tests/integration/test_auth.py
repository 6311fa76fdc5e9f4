"""The auth endpoints, through HTTP: registration, login, tokens, refresh, logout (see also `test_login_limits.py`)."""

import copy
from datetime import timedelta
from uuid import uuid4

import jwt
import pytest
from flask import Flask
from flask_jwt_extended import create_access_token

from shared.accounts import users
from shared.db.engine import Sessions
from tests.support.client import PASSWORD, ApiUser, assert_problem
from tests.support.servers import SECRET, wait_until

CREDENTIALS = {"username": "carol", "password": PASSWORD}


def post(app: Flask, path: str, body: object, **kwargs):
    return app.test_client().post(path, json=body, **kwargs)


class TestRegister:
    def test_registration_answers_201_with_the_user(self, app: Flask) -> None:
        response = post(app, "/auth/register/", CREDENTIALS)
        assert response.status_code == 201
        assert response.json.keys() == {"id", "username", "created_at"}
        assert response.json["username"] == "carol"

    def test_registering_a_taken_name_is_409(self, app: Flask) -> None:
        post(app, "/auth/register/", CREDENTIALS)
        assert_problem(post(app, "/auth/register/", CREDENTIALS), 409)

    def test_registration_is_403_where_it_is_disabled(self, make_app) -> None:
        app, _ = make_app(registration=False)
        assert_problem(post(app, "/auth/register/", CREDENTIALS), 403)

    @pytest.mark.parametrize("username", ["", "a" * 151, "a b", "a/b", "ä", "a\n", "a\0"])
    def test_a_username_with_other_characters_is_400(self, app: Flask, username: str) -> None:
        assert_problem(post(app, "/auth/register/", CREDENTIALS | {"username": username}), 400)

    @pytest.mark.parametrize("username", ["a", "A.b-c_9", "a" * 150])
    def test_a_valid_username_is_accepted(self, app: Flask, username: str) -> None:
        assert post(app, "/auth/register/", CREDENTIALS | {"username": username}).status_code == 201

    @pytest.mark.parametrize("password", ["short", "a" * 1025, "null\0null", None, 12345678])
    def test_an_invalid_password_is_400(self, app: Flask, password: object) -> None:
        assert_problem(post(app, "/auth/register/", CREDENTIALS | {"password": password}), 400)

    @pytest.mark.usefixtures("production_hashes")
    def test_the_password_is_stored_as_an_argon2id_hash(self, app: Flask, sessions: Sessions) -> None:
        post(app, "/auth/register/", CREDENTIALS)
        with sessions() as session:
            assert users.find(session, "carol").password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


class TestLogin:
    def test_a_login_answers_200_with_both_tokens(self, app: Flask) -> None:
        post(app, "/auth/register/", CREDENTIALS)
        response = post(app, "/login/", CREDENTIALS)
        assert response.status_code == 200
        assert response.json.keys() == {"access", "refresh"}
        assert response.headers["Cache-Control"] == "no-store"

    @pytest.mark.parametrize("change", [{"password": "wrong password"}, {"username": "nobody"}])
    def test_wrong_credentials_are_401_without_saying_which_part_is_wrong(self, app: Flask, change: dict) -> None:
        post(app, "/auth/register/", CREDENTIALS)
        problem = assert_problem(post(app, "/login/", CREDENTIALS | change), 401)
        assert problem["detail"] == "The username or the password is wrong."

    @pytest.mark.usefixtures("production_hashes")
    def test_the_login_of_an_unknown_user_also_verifies_a_hash(self) -> None:
        real = users.hash_password(PASSWORD)
        assert users.NO_USER_HASH.split("$")[:4] == real.split("$")[:4]
        assert not users.verify_password(users.NO_USER_HASH, PASSWORD)


class TestTokens:
    @pytest.mark.parametrize(
        "header",
        [None, "", "Bearer", "Bearer ", "Basic YTpi", "Bearer x.y.z", "Token {access}", "Bearer {refresh}", "{access}"],
    )
    def test_a_missing_or_malformed_token_is_401(self, alice: ApiUser, header: str | None) -> None:
        headers = {} if header is None else {"Authorization": header.format(**alice.tokens)}
        response = alice._client.get("/prompts/", headers=headers)
        assert_problem(response, 401)
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        ("key", "algorithm", "changes"),
        [
            ("another key that is long enough, too", "HS256", {}),
            (SECRET, "HS512", {}),
            ("", "none", {}),
            (SECRET, "HS256", {"exp": 1}),
            (SECRET, "HS256", {"sub": "999"}),
            (SECRET, "HS256", {"fam": str(uuid4())}),
            (SECRET, "HS256", {"fam": "no uuid"}),
            (SECRET, "HS256", {"fam": None}),
            (SECRET, "HS256", {"type": "refresh"}),
        ],
    )
    def test_a_forged_or_expired_token_is_401(self, alice: ApiUser, key: str, algorithm: str, changes: dict) -> None:
        claims = jwt.decode(alice.tokens["access"], SECRET, algorithms=["HS256"]) | changes
        forged = jwt.encode(claims, key or None, algorithm=algorithm)
        assert_problem(alice.get("/prompts/", headers={"Authorization": f"Bearer {forged}"}), 401)

    def test_a_token_of_another_service_with_the_same_key_is_401(self, app: Flask, alice: ApiUser) -> None:
        with app.app_context():
            foreign = create_access_token(str(alice.id), expires_delta=timedelta(minutes=1))
        assert_problem(alice.get("/prompts/", headers={"Authorization": f"Bearer {foreign}"}), 401)


class TestRefresh:
    def test_a_refresh_returns_a_new_pair(self, app: Flask, alice: ApiUser) -> None:
        response = post(app, "/auth/refresh/", {"refresh": alice.tokens["refresh"]})
        assert response.status_code == 200
        assert response.json["refresh"] != alice.tokens["refresh"]
        alice.tokens = response.json
        assert alice.get("/prompts/").status_code == 200

    def test_reusing_a_spent_refresh_token_revokes_its_whole_family(self, app: Flask, alice: ApiUser) -> None:
        spent = {"refresh": alice.tokens["refresh"]}
        newer = post(app, "/auth/refresh/", spent).json
        assert_problem(post(app, "/auth/refresh/", spent), 401)
        assert_problem(post(app, "/auth/refresh/", {"refresh": newer["refresh"]}), 401)
        alice.tokens = newer
        assert_problem(alice.get("/prompts/"), 401)

    def test_a_logout_leaves_other_logins_valid(self, app: Flask, alice: ApiUser) -> None:
        other = post(app, "/login/", {"username": "alice", "password": PASSWORD}).json
        post(app, "/auth/logout/", {"refresh": alice.tokens["refresh"]})
        alice.tokens = other
        assert alice.get("/prompts/").status_code == 200

    @pytest.mark.parametrize("token", ["x", "a.b.c", "{access}"])
    def test_an_invalid_refresh_token_is_401(self, app: Flask, alice: ApiUser, token: str) -> None:
        assert_problem(post(app, "/auth/refresh/", {"refresh": token.format(**alice.tokens)}), 401)


class TestLogout:
    def test_a_logout_answers_204_and_revokes_both_tokens_immediately(self, app: Flask, alice: ApiUser) -> None:
        body = {"refresh": alice.tokens["refresh"]}
        response = post(app, "/auth/logout/", body)
        assert (response.status_code, response.data) == (204, b"")
        assert_problem(alice.get("/prompts/"), 401)
        assert_problem(post(app, "/auth/refresh/", body), 401)

    def test_a_repeated_logout_is_204(self, app: Flask, alice: ApiUser) -> None:
        body = {"refresh": alice.tokens["refresh"]}
        assert [post(app, "/auth/logout/", body).status_code for _ in range(2)] == [204, 204]


class TestSeveralProcesses:
    """Each process caches the tokens that it has verified, until their login ends in any process."""

    @pytest.fixture
    def second_process(self, make_app, alice: ApiUser):
        """A second process with alice's token in its cache: alice as its client, and its services."""
        app, services = make_app()
        wait_until(lambda: services.relay._pubsub is not None and services.token_cache.is_checked)
        there = copy.copy(alice)
        there._client = app.test_client()
        there.get("/prompts/")
        assert services.token_cache.find(alice.tokens["access"]) is not None
        return there, services

    def test_a_logout_invalidates_the_token_in_other_processes(
        self, app: Flask, alice: ApiUser, second_process
    ) -> None:
        there, _ = second_process
        post(app, "/auth/logout/", {"refresh": alice.tokens["refresh"]})
        assert alice.get("/prompts/").status_code == 401
        wait_until(lambda: there.get("/prompts/").status_code == 401)

    def test_a_logout_whose_message_was_lost_is_found_by_the_next_check(
        self, app: Flask, services, alice: ApiUser, second_process
    ) -> None:
        there, _ = second_process
        services.announcer._publish = lambda _: None
        post(app, "/auth/logout/", {"refresh": alice.tokens["refresh"]})
        wait_until(lambda: there.get("/prompts/").status_code == 401)

    def test_a_logout_leaves_other_logins_valid_in_other_processes(
        self, app: Flask, alice: ApiUser, second_process
    ) -> None:
        there, services = second_process
        other = post(app, "/login/", {"username": "alice", "password": PASSWORD}).json
        post(app, "/auth/logout/", {"refresh": other["refresh"]})
        wait_until(lambda: services.token_cache.find(alice.tokens["access"]) is None)
        assert there.get("/prompts/").status_code == 200
