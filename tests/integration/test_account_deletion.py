"""DELETE /account/: prompts, vectors, keys, webhooks and feed are gone from every answer at once."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask
from sqlalchemy import insert, select, text
from werkzeug.test import TestResponse

from api.services import Services
from shared.accounts import deletion, logins, users
from shared.accounts.audit import COMMAND_LINE
from shared.db.engine import Sessions
from shared.db.models import ApiKey, AuditEntry, Webhook
from shared.errors import UserNotFoundError
from shared.prompts import claims
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import PASSWORD, ApiUser, assert_problem
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from worker.pipeline import Pipeline

SECOND = "another secret text"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"feed_check_seconds": 0.5})


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as made:
        yield made


def delete(user: ApiUser, password: str = PASSWORD) -> TestResponse:
    return user.call("DELETE", "/account/", json={"password": password})


def log_in(app: Flask, username: str) -> TestResponse:
    return app.test_client().post("/login/", json={"username": username, "password": PASSWORD})


class TestAnswer:
    def test_the_right_password_answers_204_and_everything_of_the_account_is_401_at_once(
        self, app: Flask, alice: ApiUser
    ) -> None:
        prompt_id = alice.submit()
        response = delete(alice)
        assert (response.status_code, response.data) == (204, b"")
        paths = ("/account/", "/account/export/", "/account/logins/", "/prompts/", f"/prompts/{prompt_id}/")
        for path in (*paths, f"/prompts/{prompt_id}/stream/", "/prompts/similar/?prompt=tide"):
            assert_problem(alice.get(path), 401)
        assert_problem(delete(alice), 401)
        refreshed = app.test_client().post("/auth/refresh/", json={"refresh": alice.tokens["refresh"]})
        assert_problem(refreshed, 401)
        assert_problem(log_in(app, "alice"), 401)

    def test_a_wrong_password_is_400_and_deletes_nothing(self, app: Flask, alice: ApiUser) -> None:
        prompt_id = alice.submit()
        problem = assert_problem(delete(alice, "a wrong password"), 400)
        assert problem["errors"] == [{"field": "password", "message": "The password is wrong."}]
        assert alice.show(prompt_id)["status"] == "queued"
        assert log_in(app, "alice").status_code == 200

    def test_a_stolen_access_token_does_not_help_to_guess_the_password(self, app: Flask, alice: ApiUser) -> None:
        guesses = [delete(alice, f"guess {i}").status_code for i in range(10)]
        assert guesses == [400] * 10
        assert_problem(delete(alice, "guess 11"), 429)
        assert_problem(app.test_client().post("/login/", json={"username": "alice", "password": "guess 12"}), 429)

    @pytest.mark.parametrize("body", [{}, {"password": ""}, {"password": None}, {"password": "a", "user": "bob"}])
    def test_a_body_without_a_password_is_400(self, alice: ApiUser, body: dict) -> None:
        assert_problem(alice.call("DELETE", "/account/", json=body), 400)

    def test_the_deletion_is_in_the_audit_trail_without_the_name(self, alice: ApiUser, sessions: Sessions) -> None:
        delete(alice)
        with sessions() as session:
            entry = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        assert (entry.action, entry.actor_id, entry.user_id) == ("account.deleted", alice.id, alice.id)
        assert (entry.address, entry.details) == ("127.0.0.1", {})

    def test_the_account_of_another_user_is_not_affected(self, app: Flask, alice: ApiUser, bob: ApiUser) -> None:
        prompt_id = bob.submit()
        delete(alice)
        assert bob.show(prompt_id)["status"] == "queued"
        assert log_in(app, "bob").status_code == 200


class TestElsewhere:
    """What other processes, open connections and workers have of the account."""

    @pytest.mark.parametrize("is_announced", [True, False])
    def test_a_token_in_the_cache_of_another_process_is_401_within_a_second(
        self, make_app, alice: ApiUser, services: Services, is_announced: bool
    ) -> None:
        app, others = make_app()
        there = alice.at(app)
        wait_until(lambda: others.relay._pubsub is not None and others.token_cache._valid_until > 0)
        assert there.get("/prompts/").status_code == 200
        assert others.token_cache.find(alice.tokens["access"]) is not None
        if not is_announced:  # Redis has lost the message
            services.announcer._publish = lambda _: None
        delete(alice)
        wait_until(lambda: there.get("/prompts/").status_code == 401)

    def test_open_sockets_are_closed_with_4401(self, app_url: str, alice: ApiUser) -> None:
        with RemoteUser(app_url, "alice", is_new=False).join() as room:
            assert room.receive()["type"] == "connected"
            delete(alice)
            assert room.close_code() == 4401

    def test_an_open_stream_ends_without_the_prompt(
        self, app_url: str, alice: ApiUser, services: Services, threads: ThreadPoolExecutor
    ) -> None:
        prompt_id = alice.submit("a secret text")
        reader = RemoteUser(app_url, "alice", is_new=False)
        reading = threads.submit(lambda: reader.http.get(f"/prompts/{prompt_id}/stream/").text)
        wait_until(lambda: any(room.subscribers for room in services.relay._rooms.values()))
        delete(alice)
        assert "secret" not in reading.result(MAX_WAIT_SECONDS)

    def test_a_request_that_waits_for_a_prompt_is_answered_404_at_once(
        self, alice: ApiUser, services: Services, threads: ThreadPoolExecutor
    ) -> None:
        prompt_id = alice.submit()
        waiting = threads.submit(alice.get, f"/prompts/{prompt_id}/", headers={"Prefer": "wait=60"})
        wait_until(lambda: any(room.subscribers for room in services.relay._rooms.values()))
        delete(alice)
        assert_problem(waiting.result(timeout=30), 404)  # half of what it would have waited

    def test_a_running_attempt_loses_its_claim_and_queued_prompts_are_not_claimed(
        self, alice: ApiUser, sessions: Sessions, worker: Pipeline
    ) -> None:
        with sessions.begin() as session:
            running = lifecycle.submit(session, alice.id)
            claim = lifecycle.claim(session, running.id)
            lifecycle.submit(session, alice.id)
        delete(alice)
        with sessions.begin() as session:
            assert claims.still_held(session, [(claim.id, claim.attempt)]) == set()
            assert lifecycle.complete(session, claim, "an answer") is None
        assert worker.process(10) == ([], [])

    def test_prompts_that_a_deletion_cancels_get_no_event_and_no_delivery(
        self, alice: ApiUser, sessions: Sessions
    ) -> None:
        with sessions.begin() as session:
            session.execute(insert(Webhook).values(user_id=alice.id, url="https://example.com/", secret=b"s"))
        alice.submit()
        delete(alice)
        with sessions() as session:
            assert session.scalar(text("SELECT count(*) FROM feed")) == 0
            assert session.scalar(text("SELECT count(*) FROM webhook_deliveries")) == 0

    def test_keys_are_revoked_and_webhooks_are_disabled(self, alice: ApiUser, sessions: Sessions) -> None:
        alice.create_key()
        with sessions.begin() as session:
            webhook = {
                "user_id": alice.id,
                "url": "https://example.com/",
                "secret": b"s",
                "leased_until": text("now()"),
            }
            session.execute(insert(Webhook).values(webhook))
        delete(alice)
        with sessions() as session:
            assert session.scalars(select(ApiKey)).one().revoked_at is not None
            webhook = session.scalars(select(Webhook)).one()
        assert webhook.disabled_at is not None
        assert webhook.leased_until is None


class TestName:
    def test_the_name_is_free_at_once_and_its_next_user_sees_nothing_of_the_last(
        self, app: Flask, app_url: str, alice: ApiUser, worker: Pipeline
    ) -> None:
        """The purge has not run."""
        alice.submit("a secret text", websocket=True)
        worker.process(1)
        delete(alice)
        successor = ApiUser(app, "alice")
        assert successor.id != alice.id
        for path in ("/prompts/", "/account/export/", "/prompts/similar/?prompt=secret"):
            response = successor.get(path)
            assert (response.status_code, "secret" in response.text) == (200, False)
        assert len(successor.get("/account/logins/").json) == 1
        with RemoteUser(app_url, "alice", is_new=False).join(since=0) as room:
            assert room.receive()["seq"] == 0
            assert room.ask({"type": "ping"})["type"] == "pong"
        assert_problem(alice.get("/prompts/"), 401)

    def test_failed_logins_of_the_deleted_user_do_not_count_for_the_next_one(self, app: Flask, alice: ApiUser) -> None:
        for i in range(9):
            delete(alice, f"guess {i}")
        delete(alice)
        ApiUser(app, "alice")
        wrong = [log_in_with(app, "alice", f"guess {i}") for i in range(10)]
        assert wrong == [401] * 10

    def test_the_name_of_a_deleted_user_is_not_a_valid_username(
        self, app: Flask, alice: ApiUser, sessions: Sessions
    ) -> None:
        delete(alice)
        with sessions() as session:
            assert users.find(session, f"#{alice.id}") is None
            assert users.list_all(session) == []
        assert_problem(log_in(app, f"#{alice.id}"), 401)


def log_in_with(app: Flask, username: str, password: str) -> int:
    return app.test_client().post("/login/", json={"username": username, "password": password}).status_code


class TestRaces:
    def test_a_login_that_verified_the_password_before_the_deletion_is_refused(
        self, app: Flask, alice: ApiUser, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        match = users.matching_form

        def match_and_delete(password_hash: str, password: str) -> str | None:
            with sessions.begin() as session, contextlib.suppress(UserNotFoundError):  # it is checked again
                deletion.delete(session, alice.id, COMMAND_LINE)
            return match(password_hash, password)

        monkeypatch.setattr(users, "matching_form", match_and_delete)
        assert_problem(log_in(app, "alice"), 401)
        with sessions() as session:
            assert logins.list_live(session, alice.id) == []

    def test_a_password_that_was_changed_after_it_was_verified_deletes_nothing(
        self, alice: ApiUser, sessions: Sessions
    ) -> None:
        with sessions() as session, pytest.raises(UserNotFoundError):
            deletion.delete(session, alice.id, COMMAND_LINE, password_hash="the former hash")
        assert alice.get("/prompts/").status_code == 200

    def test_the_second_of_two_concurrent_deletions_finds_no_account(
        self, alice: ApiUser, threads: ThreadPoolExecutor, sessions: Sessions
    ) -> None:
        statuses = sorted(
            future.result(MAX_WAIT_SECONDS).status_code for future in [threads.submit(delete, alice) for _ in range(4)]
        )
        assert statuses.count(204) == 1
        assert set(statuses) <= {204, 400, 401}
        with sessions() as session:
            assert session.scalar(text("SELECT count(*) FROM audit WHERE action = 'account.deleted'")) == 1

    def test_a_deletion_between_submissions_and_finishes_deadlocks_with_none(
        self, alice: ApiUser, sessions: Sessions, worker: Pipeline, threads: ThreadPoolExecutor
    ) -> None:
        for _ in range(20):
            alice.submit()
        statuses = [
            threads.submit(lambda: alice.post("/prompts/", json={"prompt_text": "Hi"}).status_code) for _ in range(40)
        ]
        working = [threads.submit(worker.process, 5) for _ in range(4)]
        deleting = threads.submit(delete, alice)
        assert deleting.result(MAX_WAIT_SECONDS).status_code == 204
        assert {each.result(MAX_WAIT_SECONDS) for each in statuses} <= {202, 401}
        for each in working:
            each.result(MAX_WAIT_SECONDS)
        with sessions() as session:
            assert session.scalar(text("SELECT count(*) FROM prompts WHERE status = 'processing'")) == 0
