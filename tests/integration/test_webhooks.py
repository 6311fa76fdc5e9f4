"""The webhook endpoints, through HTTP: settings, secrets, deletion. `test_webhook_replays.py` has what they send."""

import base64
import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import text
from standardwebhooks import Webhook as Receiver

from api.services import Services
from shared.db.engine import Sessions
from shared.webhooks import webhooks
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from tests.support.webhook_calls import URL, Log, act, change, create, finish, show
from worker.pipeline import Pipeline


class TestCreate:
    def test_a_new_webhook_is_201_with_its_secret_shown_once(self, alice: ApiUser) -> None:
        response = alice.post("/webhooks/", json={"url": URL, "description": "The shop"})
        assert response.status_code == 201
        created = response.json
        assert response.headers["Location"] == f"/webhooks/{created['id']}/"
        assert response.headers["Cache-Control"] == "no-store"
        secret = created.pop("secret")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created["created_at"])
        assert created == {
            "id": created["id"],
            "url": URL,
            "events": None,
            "description": "The shop",
            "status": "enabled",
            "disabled_reason": None,
            "paused_until": None,
            "failures": 0,
            "previous_secret_expires_at": None,
            "created_at": created["created_at"],
        }
        assert show(alice, created) == created
        assert alice.get("/webhooks/").json == [created]
        assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)

    def test_a_secret_is_random_and_works_with_the_library_of_the_specification(
        self, alice: ApiUser, sessions: Sessions
    ) -> None:
        first, second = create(alice), create(alice)
        assert first["secret"] != second["secret"]
        with sessions() as session:
            stored = webhooks.get(session, alice.id, first["id"]).secret
        assert len(stored) == 32
        assert base64.b64decode(first["secret"].removeprefix("whsec_")) == stored
        now = datetime.now(UTC)
        signature = Receiver(stored).sign("msg_1_1", now, "{}")
        headers = {
            "webhook-id": "msg_1_1",
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature,
        }
        assert Receiver(first["secret"]).verify("{}", headers) == {}

    def test_no_other_response_and_no_log_line_has_the_secret(
        self, alice: ApiUser, worker: Pipeline, log: Log, capfd: pytest.CaptureFixture[str]
    ) -> None:
        webhook = create(alice)
        finish(alice, worker)
        answers = [
            alice.get("/webhooks/"),
            alice.get(f"/webhooks/{webhook['id']}/"),
            alice.call("PATCH", f"/webhooks/{webhook['id']}/", json={"description": "x"}),
            act(alice, webhook, "test"),
            alice.get(f"/webhooks/{webhook['id']}/deliveries/"),
            act(alice, webhook, "recover", since=0),
        ]
        secrets = [webhook["secret"], act(alice, webhook, "rotate").json["secret"]]
        answers.append(alice.get(f"/webhooks/{webhook['id']}/"))
        written = "".join(capfd.readouterr())
        for secret in secrets:
            bare = secret.removeprefix("whsec_")
            assert all(bare not in answer.text for answer in answers)
            assert bare not in written
        assert "whsec_" not in json.dumps([answer.json for answer in answers])
        assert all("whsec" not in str(row) for row in log.execute("SELECT * FROM audit"))

    @pytest.mark.parametrize(
        "events",
        [None, ["prompt.completed"], ["prompt.failed", "prompt.cancelled"], ["prompt.failed", "prompt.failed"]],
    )
    def test_events_are_the_types_that_it_gets_or_null_for_all(self, alice: ApiUser, events: list[str] | None) -> None:
        assert create(alice, events=events)["events"] == (events and list(dict.fromkeys(events)))

    def test_an_unknown_event_is_400_with_the_list_of_events(self, alice: ApiUser) -> None:
        problem = assert_problem(alice.post("/webhooks/", json={"url": URL, "events": ["prompt.started"]}), 400)
        assert problem["errors"][0]["field"] == "events.0"
        for event in ("prompt.completed", "prompt.failed", "prompt.cancelled"):
            assert event in problem["errors"][0]["message"]

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "url"),
            ({"url": None}, "url"),
            ({"url": 7}, "url"),
            ({"url": ""}, "url"),
            ({"url": "hooks.example"}, "url"),
            ({"url": "ftp://hooks.example/"}, "url"),
            ({"url": "https://user:pw@hooks.example/"}, "url"),
            ({"url": "https://hooks.example/#part"}, "url"),
            ({"url": "https://hooks.example/\0"}, "url"),
            ({"url": "https://hooks.example/" + "a" * 2_048}, "url"),
            ({"url": URL, "events": []}, "events"),
            ({"url": URL, "events": "prompt.failed"}, "events"),
            ({"url": URL, "events": [None]}, "events.0"),
            ({"url": URL, "events": ["prompt.failed"] * 100}, "events"),
            ({"url": URL, "description": None}, "description"),
            ({"url": URL, "description": "a" * 501}, "description"),
            ({"url": URL, "description": "a\0"}, "description"),
            ({"url": URL, "secret": "whsec_mine"}, "secret"),
            ({"url": URL, "user_id": 1}, "user_id"),
        ],
    )
    def test_invalid_input_is_400_and_names_the_field(
        self, shared_alice: ApiUser, shared_webhook: dict, body: dict, field: str
    ) -> None:
        problem = assert_problem(shared_alice.post("/webhooks/", json=body), 400)
        assert problem["errors"][0]["field"] == field
        assert [webhook["id"] for webhook in shared_alice.get("/webhooks/").json] == [shared_webhook["id"]]

    def test_a_lone_surrogate_broken_json_and_a_wrong_media_type_are_refused(self, alice: ApiUser) -> None:
        as_json = {"headers": {"Content-Type": "application/json"}}
        surrogate = f'{{"url": "{URL}", "description": "\\ud800"}}'
        assert_problem(alice.post("/webhooks/", data=surrogate, **as_json), 400)
        assert_problem(alice.post("/webhooks/", data='{"url": ', **as_json), 400)
        assert_problem(alice.post("/webhooks/", data="url=x"), 415)
        assert_problem(alice.post("/webhooks/", data=b"{" + b" " * 5_000_000 + b"}", **as_json), 413)

    @pytest.mark.parametrize("allowed", [False, True])
    def test_http_is_refused_unless_private_addresses_are_allowed(
        self, make_app: Callable[..., tuple[Flask, Services]], allowed: bool
    ) -> None:
        app, _ = make_app(webhook_allow_private=allowed)
        response = ApiUser(app, "alice").post("/webhooks/", json={"url": "http://127.0.0.1:9000/hook"})
        assert response.status_code == (201 if allowed else 400), response.text

    def test_a_user_has_at_most_20_webhooks(self, alice: ApiUser, bob: ApiUser) -> None:
        created = [create(alice) for _ in range(20)]
        problem = assert_problem(alice.post("/webhooks/", json={"url": URL}), 409)
        assert problem["type"] == "urn:promptwire:problem:too-many-webhooks"
        assert "20" in problem["detail"]
        create(bob)
        alice.delete(f"/webhooks/{created[0]['id']}/")
        create(alice)

    def test_the_limit_holds_for_concurrent_requests(self, alice: ApiUser, sessions: Sessions) -> None:
        for _ in range(18):
            create(alice)
        codes: list[int] = []
        threads = [
            threading.Thread(target=lambda: codes.append(alice.post("/webhooks/", json={"url": URL}).status_code))
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(MAX_WAIT_SECONDS)
        assert sorted(codes) == [201, 201, 409, 409, 409, 409]

    def test_a_deleted_user_gets_no_webhook(self, alice: ApiUser, log: Log) -> None:
        alice.get("/webhooks/")  # the token is known by now
        log.execute("UPDATE users SET deleted_at = now() WHERE id = :id", id=alice.id)
        assert_problem(alice.post("/webhooks/", json={"url": URL}), 401)
        assert log.execute("SELECT id FROM webhooks") == []

    def test_the_webhooks_of_a_user_are_deleted_with_the_user(self, alice: ApiUser, worker: Pipeline, log: Log) -> None:
        create(alice)
        finish(alice, worker)
        log.end_all()
        log.execute("DELETE FROM users WHERE id = :id", id=alice.id)
        for table in ("webhooks", "webhook_deliveries", "webhook_attempts"):
            assert log.execute(f"SELECT * FROM {table}") == []  # noqa: S608


class TestChange:
    def test_patch_changes_only_the_given_fields(self, alice: ApiUser) -> None:
        webhook = create(alice, events=["prompt.failed"], description="first")
        before = show(alice, webhook)
        assert change(alice, webhook, description="second") == before | {"description": "second"}
        assert change(alice, webhook, events=None, description="") == before | {"events": None, "description": ""}
        url = "https://other.example/"
        assert change(alice, webhook, url=url)["url"] == url
        assert change(alice, webhook) == show(alice, webhook)

    @pytest.mark.parametrize(
        "body",
        [
            {"url": None},
            {"url": ""},
            {"url": "http://"},
            {"events": []},
            {"events": ["prompt.started"]},
            {"description": None},
            {"disabled": None},
            {"disabled": "yes"},
            {"disabled": 1},
            {"status": "enabled"},
            {"secret": "whsec_mine"},
            {"failures": 0},
            {"id": 7},
        ],
    )
    def test_unknown_fields_nulls_and_wrong_types_are_400(
        self, shared_alice: ApiUser, shared_webhook: dict, body: dict
    ) -> None:
        before = show(shared_alice, shared_webhook)
        problem = assert_problem(shared_alice.call("PATCH", f"/webhooks/{shared_webhook['id']}/", json=body), 400)
        assert problem["errors"][0]["field"].partition(".")[0] == next(iter(body))
        assert show(shared_alice, shared_webhook) == before

    def test_a_disabled_webhook_gets_no_events(self, alice: ApiUser, worker: Pipeline, log: Log) -> None:
        webhook = create(alice)
        disabled = change(alice, webhook, disabled=True)
        assert (disabled["status"], disabled["disabled_reason"]) == ("disabled", "You have disabled it.")
        finish(alice, worker)
        assert log.events(webhook["id"]) == []
        enabled = change(alice, webhook, disabled=False)
        assert (enabled["status"], enabled["disabled_reason"]) == ("enabled", None)
        finish(alice, worker)
        assert log.events(webhook["id"]) == [(2, "prompt.completed", "pending", 0)]

    def test_why_it_is_disabled_stays_until_it_is_enabled(self, alice: ApiUser, log: Log) -> None:
        webhook = create(alice)
        log.execute("UPDATE webhooks SET disabled_at = now(), disabled_reason = 'The receiver answered 410.'")
        assert change(alice, webhook, disabled=True)["disabled_reason"] == "The receiver answered 410."

    @pytest.mark.parametrize("changes", [{"disabled": False}, {"url": "https://other.example/"}])
    def test_an_enabled_webhook_and_one_with_a_new_url_are_tried_at_once(
        self, alice: ApiUser, log: Log, changes: dict
    ) -> None:
        webhook = create(alice)
        log.execute("UPDATE webhooks SET failures = 3, paused_until = now() + interval '1 hour'")
        paused = change(alice, webhook, description="still paused")
        assert (paused["status"], paused["failures"]) == ("paused", 3)
        assert datetime.fromisoformat(paused["paused_until"]) > datetime.now(UTC) + timedelta(minutes=30)
        resumed = change(alice, webhook, **changes)
        assert (resumed["status"], resumed["failures"], resumed["paused_until"]) == ("enabled", 0, None)


class TestDelete:
    def test_a_deleted_webhook_is_204_then_404_and_its_pending_deliveries_end(
        self, alice: ApiUser, worker: Pipeline, log: Log
    ) -> None:
        webhook, other = create(alice), create(alice)
        finish(alice, worker)
        assert alice.delete(f"/webhooks/{webhook['id']}/").status_code == 204
        assert_problem(alice.get(f"/webhooks/{webhook['id']}/"), 404)
        assert_problem(alice.delete(f"/webhooks/{webhook['id']}/"), 404)
        assert [each["id"] for each in alice.get("/webhooks/").json] == [other["id"]]
        assert log.execute("SELECT webhook_id, status FROM webhook_deliveries") == [(other["id"], "pending")]

    def test_a_webhook_with_many_deliveries_is_deleted_in_bounded_transactions(
        self, alice: ApiUser, worker: Pipeline, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(webhooks, "DELETED_AT_ONCE", 2)
        webhook = create(alice)
        finish(alice, worker, 5)
        log.end_all()
        assert alice.delete(f"/webhooks/{webhook['id']}/").status_code == 204
        assert log.execute("SELECT * FROM webhook_deliveries") == []
        assert log.execute("SELECT * FROM webhook_attempts") == []
        assert [row.action for row in log.execute("SELECT action FROM audit ORDER BY id")][1:] == ["webhook.deleted"]

    def test_a_prompt_that_finishes_while_its_users_webhook_is_deleted_is_completed(
        self, alice: ApiUser, worker: Pipeline, sessions: Sessions, log: Log
    ) -> None:
        webhook = create(alice)
        prompt = alice.submit()
        finishing = threading.Thread(target=worker.process, args=(1,))
        waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        with sessions.begin() as session:
            session.execute(text("DELETE FROM webhooks WHERE id = :id"), webhook)
            finishing.start()
            wait_until(lambda: log.execute(waiting), what="the finish that waits for the deletion")
        finishing.join(MAX_WAIT_SECONDS)
        assert alice.show(prompt)["status"] == "completed"
        assert log.execute("SELECT * FROM webhook_deliveries") == []


class TestRotate:
    def test_a_rotated_secret_is_new_and_the_old_one_signs_for_24_hours(
        self, alice: ApiUser, sessions: Sessions
    ) -> None:
        webhook = create(alice)
        response = act(alice, webhook, "rotate")
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"
        assert response.json["secret"] != webhook["secret"]
        with sessions() as session:
            stored = webhooks.get(session, alice.id, webhook["id"])
        assert webhooks.format_secret(stored.secret) == response.json["secret"]
        assert webhooks.format_secret(stored.previous_secret) == webhook["secret"]
        left = datetime.fromisoformat(response.json["previous_secret_expires_at"]) - datetime.now(UTC)
        assert timedelta(hours=23) < left < timedelta(hours=25)

    def test_a_second_rotation_ends_the_first_secret(self, alice: ApiUser, sessions: Sessions) -> None:
        webhook = create(alice)
        second, _ = (act(alice, webhook, "rotate").json["secret"] for _ in range(2))
        with sessions() as session:
            stored = webhooks.get(session, alice.id, webhook["id"])
        assert webhooks.format_secret(stored.previous_secret) == second

    def test_an_expired_secret_is_not_mentioned(self, alice: ApiUser, log: Log) -> None:
        webhook = create(alice)
        act(alice, webhook, "rotate")
        log.execute("UPDATE webhooks SET previous_secret_expires_at = now() - interval '1 second'")
        assert show(alice, webhook)["previous_secret_expires_at"] is None
