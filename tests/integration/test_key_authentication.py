"""API keys as credentials: wherever an access token works, until they expire or are revoked, in every process."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from flask import Flask
from sqlalchemy import text, update

from api.client import Client, NotLoggedInError
from api.client.options import Exit
from api.realtime import ended_logins
from api.services import Services
from shared.db.engine import Sessions
from shared.db.models import ApiKey
from tests.support.client import ApiUser, assert_problem, serving
from tests.support.command_line import CommandLine
from tests.support.processes import RemoteUser
from tests.support.servers import Servers, wait_until
from worker.pipeline import Pipeline

PAUSED, AWAY = "paused", "away"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {} "])
def test_a_key_works_as_a_bearer_token_in_any_case_of_the_scheme(app: Flask, alice: ApiUser, form: str) -> None:
    header = {"Authorization": form.format(alice.create_key()["key"])}
    assert app.test_client().get("/account/", headers=header).json["username"] == "alice"


@pytest.mark.parametrize(
    "header",
    ["{}", "Basic {}", "Token {}", "Bearer", "Bearer {} {}", "Bearer {}, Bearer {}", "Bearer {}é", "Bearer {}\0"],
)
def test_a_key_in_another_form_of_the_header_is_401(app: Flask, alice: ApiUser, header: str) -> None:
    header = header.replace("{}", alice.create_key()["key"])
    response = app.test_client().get("/account/", headers={"Authorization": header})
    assert_problem(response, 401)
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("name", ["access_token", "token", "jwt", "key", "api_key"])
def test_a_key_in_the_query_a_cookie_or_another_header_is_401(app: Flask, alice: ApiUser, name: str) -> None:
    """Addresses are logged and shared."""
    key, client = alice.create_key()["key"], app.test_client()
    assert_problem(client.get("/account/", query_string={name: key}), 401)
    assert_problem(client.get("/account/", headers={"X-API-Key": key}), 401)
    client.set_cookie(name, key)
    assert_problem(client.get("/account/"), 401)


def expire(sessions: Sessions, *, in_seconds: float) -> None:
    with sessions.begin() as session:
        session.execute(update(ApiKey).values(expires_at=text(f"now() + make_interval(secs => {in_seconds})")))


def event_stream(url: str, key: str, prompt_id: int) -> contextlib.AbstractContextManager[httpx.Response]:
    return httpx.stream("GET", f"{url}/prompts/{prompt_id}/stream/", headers=bearer(key), timeout=120)


class TestEverywhere:
    """A key works wherever an access token does. REST is in `test_key_scopes.py`."""

    @pytest.fixture
    def user(self, app_url: str) -> RemoteUser:
        return RemoteUser(app_url)

    @pytest.fixture
    def key(self, user: RemoteUser) -> str:
        return user.http.post("/auth/keys/", json={"name": "k"}).raise_for_status().json()["key"]

    def test_a_key_in_the_header_joins_its_users_room(self, user: RemoteUser, key: str) -> None:
        with user.join(additional_headers=bearer(key)) as room:
            assert room.receive()["type"] == "connected"

    def test_a_key_in_the_subprotocols_joins_as_browsers_do(self, user: RemoteUser, key: str) -> None:
        with user.join(additional_headers={}, subprotocols=["bearer", key]) as room:
            assert room.receive()["type"] == "connected"
            assert room.connection.subprotocol == "bearer"

    def test_a_key_of_another_user_is_4403(self, user: RemoteUser, key: str) -> None:
        other = RemoteUser(user.url)
        with other.join(additional_headers=bearer(key)) as room:
            assert room.receive().keys() == {"error"}
            assert room.close_code() == 4403

    def test_a_key_without_prompts_read_is_4403(self, user: RemoteUser) -> None:
        response = user.http.post("/auth/keys/", json={"name": "k", "scopes": ["prompts:write"]})
        with user.join(additional_headers=bearer(response.json()["key"])) as room:
            assert "prompts:read" in room.receive()["error"]
            assert room.close_code() == 4403

    @pytest.mark.parametrize("wrong", ["pw_", "pw_" + "a" * 49, "pw_é"])
    def test_a_wrong_key_is_4401(self, user: RemoteUser, key: str, wrong: str) -> None:
        with user.join(additional_headers=bearer(wrong)) as room:
            assert room.receive().keys() == {"error"}
            assert room.close_code() == 4401

    def test_a_key_follows_a_prompts_text(self, user: RemoteUser, key: str, worker: Pipeline) -> None:
        prompt_id = user.submit()
        worker.process(1)
        with event_stream(user.url, key, prompt_id) as response:
            assert "event: prompt.completed" in response.read().decode()

    def test_the_client_uses_a_key_without_a_login(self, user: RemoteUser, key: str, worker: Pipeline) -> None:
        with Client(user.url, api_key=key) as client:
            prompt = client.submit("What is a tide?")
            worker.process(1)
            assert client.show(prompt["id"])["status"] == "completed"
            assert client.username == user.username
            assert next(client.listen(since=0))["id"] == prompt["id"]
            assert [event["type"] for event in client.follow(prompt["id"])][-1] == "prompt.completed"

    def test_the_client_creates_lists_and_revokes_keys(self, user: RemoteUser) -> None:
        made = user.http.post("/auth/keys/", json={"name": "k", "scopes": ["prompts:read", "keys:write"]}).json()
        with Client(user.url, api_key=made["key"]) as client:
            created = client.keys.create("another", scopes=["prompts:read"])
            assert [key["name"] for key in client.keys.list()] == ["another", "k"]
            client.keys.revoke(created["id"])
            assert [key["name"] for key in client.keys.list()] == ["k"]
        with Client(user.url, api_key=created["key"]) as client, pytest.raises(NotLoggedInError, match="revoked"):
            client.show(1)

    def test_the_command_line_uses_a_key_from_the_environment(
        self, user: RemoteUser, tmp_path: Path, worker: Pipeline
    ) -> None:
        scopes = ["prompts:read", "prompts:write", "keys:write"]
        key = user.http.post("/auth/keys/", json={"name": "k", "scopes": scopes}).json()["key"]
        shell = CommandLine(user.url, tmp_path)
        shell.environment |= {"PROMPTWIRE_API_KEY": f"{key}\n"}
        (prompt,) = shell.json("submit", "What is a tide?")
        assert prompt["user"] == user.username
        worker.process(1)
        (event,) = shell.json("listen", "--since", "0", "--limit", "1")
        assert event["id"] == prompt["id"]
        made = shell.run(
            "keys", "create", "for CI", "--rate-limit", "1/second", "--scope", "prompts:read"
        ).stdout.strip()
        listed = shell.json("keys", "list")
        assert [(each["name"], each["prefix"]) for each in listed] == [("for CI", made[:11]), ("k", key[:11])]
        assert "for CI" in shell.run("keys", "list").stdout
        assert shell.run("keys", "revoke", str(listed[0]["id"])).returncode == Exit.OK
        shell.environment["PROMPTWIRE_API_KEY"] = made
        result = shell.run("list")
        assert (result.returncode, "revoked" in result.stderr) == (Exit.NOT_LOGGED_IN, True)


class TestRefusal:
    @pytest.mark.parametrize("state", ["wrong", "almost right", "malformed", "revoked", "expired", "of a deleted user"])
    def test_a_wrong_a_revoked_and_an_expired_key_get_the_same_401(
        self, alice: ApiUser, sessions: Sessions, state: str
    ) -> None:
        made = alice.create_key()
        key = {"wrong": "pw_" + "a" * 49, "almost right": made["key"][:-1] + "_", "malformed": "pw_"}.get(
            state, made["key"]
        )
        if state == "revoked":
            alice.delete(f"/auth/keys/{made['id']}/")
        elif state == "expired":
            expire(sessions, in_seconds=-1)
        elif state == "of a deleted user":
            with sessions.begin() as session:
                session.execute(text("UPDATE users SET deleted_at = now()"))
        response = alice.with_key(key).get("/prompts/")
        assert assert_problem(response, 401)["detail"] == "The API key is wrong, revoked or expired."
        assert response.headers["WWW-Authenticate"] == "Bearer"

    def test_a_key_is_not_a_refresh_token(self, app: Flask, alice: ApiUser) -> None:
        for path in ("/auth/refresh/", "/auth/logout/"):
            response = app.test_client().post(path, json={"refresh": alice.create_key()["key"]})
            assert_problem(response, 401)

    def test_another_users_key_can_not_be_revoked(self, alice: ApiUser, bob: ApiUser) -> None:
        made = alice.create_key()
        for key_id in (made["id"], 999):
            assert_problem(bob.delete(f"/auth/keys/{key_id}/"), 404)
        assert alice.with_key(made["key"]).get("/prompts/").status_code == 200

    def test_a_revocation_is_204_and_refuses_the_key_at_once(self, alice: ApiUser) -> None:
        made = alice.create_key()
        user = alice.with_key(made["key"])
        assert user.get("/prompts/").status_code == 200
        response = alice.delete(f"/auth/keys/{made['id']}/")
        assert (response.status_code, response.data) == (204, b"")
        assert_problem(user.get("/prompts/"), 401)
        assert alice.get("/auth/keys/").json == []
        assert_problem(alice.delete(f"/auth/keys/{made['id']}/"), 404)

    def test_other_keys_and_logins_of_the_user_stay(self, alice: ApiUser) -> None:
        revoked, other = alice.create_key(), alice.with_key()
        alice.delete(f"/auth/keys/{revoked['id']}/")
        assert [user.get("/prompts/").status_code for user in (alice, other)] == [200, 200]

    def test_a_cached_key_is_401_from_the_moment_at_which_it_expires(self, alice: ApiUser, sessions: Sessions) -> None:
        user = alice.with_key()
        expire(sessions, in_seconds=1)
        user.get("/prompts/")
        wait_until(lambda: user.get("/prompts/").status_code == 401)

    def test_sockets_and_streams_end_when_their_key_expires(self, app_url: str, sessions: Sessions) -> None:
        user = RemoteUser(app_url)
        key = user.http.post("/auth/keys/", json={"name": "k"}).json()["key"]
        prompt_id = user.submit()
        expire(sessions, in_seconds=1.5)
        with user.join(additional_headers=bearer(key)) as room, event_stream(app_url, key, prompt_id) as response:
            assert room.close_code() == 4401
            response.read()


class TestRevocationElsewhere:
    """Every process refuses a revoked key within a second, also without Redis: it asks Postgres twice a second."""

    @pytest.fixture(params=[PAUSED, AWAY])
    def redis_is(self, request: pytest.FixtureRequest) -> str:
        return request.param

    @pytest.fixture
    def without_redis(self, servers: Servers, redis_is: str) -> dict[str, object]:
        """Settings of a process that cannot reach Redis, and polls the feeds never."""
        away = {"redis_url": servers.settings("any", redis_url="redis://127.0.0.1:9/0").redis_url}
        return {"feed_check_seconds": 3_600} | (away if redis_is == AWAY else {})

    @pytest.fixture
    def lost_redis(self, servers: Servers, redis_is: str) -> Callable[[], contextlib.AbstractContextManager[None]]:
        return servers.valkey_process.stalled if redis_is == PAUSED else contextlib.nullcontext

    @pytest.fixture
    def here(self, make_app, without_redis) -> ApiUser:
        return ApiUser(make_app(**without_redis)[0], "alice")

    @pytest.fixture
    def there(self, make_app, without_redis) -> tuple[Flask, Services]:
        app, services = make_app(**without_redis)
        wait_until(lambda: services.token_cache.is_checked)
        return app, services

    def test_the_check_is_often_enough(self) -> None:
        assert ended_logins.CHECK_SECONDS <= 0.5

    def test_a_revoked_key_is_refused_by_another_process_that_has_it_cached(self, here, there, lost_redis) -> None:
        made = here.create_key()
        user = here.with_key(made["key"]).at(there[0])
        assert user.get("/prompts/").status_code == 200
        with lost_redis():
            assert there[1].token_cache.find(made["key"]) is not None
            assert here.delete(f"/auth/keys/{made['id']}/").status_code == 204
            wait_until(lambda: user.get("/prompts/").status_code == 401)

    def test_its_sockets_and_streams_at_another_process_are_closed(
        self, here, there, lost_redis, sessions: Sessions
    ) -> None:
        made, kept = here.create_key(), here.create_key()
        prompt_id = here.submit()
        with serving(there[0]) as url, contextlib.ExitStack() as stack:
            user = RemoteUser(url, "alice", is_new=False)
            rooms = [stack.enter_context(user.join(additional_headers=bearer(key["key"]))) for key in (made, kept)]
            assert [room.receive()["type"] for room in rooms] == ["connected"] * 2
            response = stack.enter_context(event_stream(url, made["key"], prompt_id))
            with lost_redis():
                here.delete(f"/auth/keys/{made['id']}/")
                assert rooms[0].close_code() == 4401
                response.read()
            assert rooms[1].ask({"type": "ping"})["type"] == "pong"


def test_a_socket_that_was_let_in_just_before_a_revocation_is_closed(
    app: Flask, services: Services, alice: ApiUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A revocation is reported to sockets once, so the relay remembers it for those that come a moment later."""
    made = alice.create_key()
    principal = services.authenticator.authenticate_token(made["key"])
    alice.delete(f"/auth/keys/{made['id']}/")
    wait_until(lambda: services.relay._ended_logins.are_recent_of(alice.id))
    with serving(app) as url:
        user = RemoteUser(url, "alice", is_new=False)
        monkeypatch.setattr(services.authenticator, "authenticate_token", lambda _: principal)
        with user.join() as room:
            assert room.close_code() == 4401


def test_a_revocation_is_reported_once(services: Services, alice: ApiUser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all of a user's sockets would ask the database twice a second for a minute."""
    reports: list[int] = []
    watch = ended_logins.EndedLogins(services.autocommit_engine, services.token_cache, reports.append)
    alice.delete(f"/auth/keys/{alice.create_key()['id']}/")
    for _ in range(3):
        watch.check()
    assert reports == [alice.id]
    alice.delete(f"/auth/keys/{alice.create_key()['id']}/")
    for _ in range(3):
        watch.check()
    assert reports == [alice.id] * 2
