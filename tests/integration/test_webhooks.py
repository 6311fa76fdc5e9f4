"""The webhook endpoints, through HTTP. No worker delivers here: `shared/webhooks` is what these tests look at."""

import base64
import json
import math
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import text
from standardwebhooks import Webhook as Receiver

from api.auth.principal import KeyGrant, Principal
from api.services import Services
from shared.db.engine import Sessions
from shared.db.models import Scope
from shared.webhooks import replay, webhooks
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import wait_until
from worker.pipeline import Pipeline

URL = "https://hooks.example/promptwire"
ROUTES = [
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("POST", "rotate/"),
    ("POST", "test/"),
    ("GET", "deliveries/"),
    ("POST", "deliveries/1/replay/"),
    ("POST", "recover/"),
]
BODIES = {"PATCH": {"description": "mine"}, "recover/": {"since": 0}}


class Log:
    """The deliveries in the database, and what a worker would do with them."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def execute(self, statement: str, **parameters: object) -> list:
        with self._sessions.begin() as session:
            result = session.execute(text(statement), parameters)
            return result.all() if result.returns_rows else []

    def events(self, webhook_id: int) -> list[tuple]:
        """Number, type, status and attempts of each delivery."""
        return [
            tuple(row)
            for row in self.execute(
                "SELECT seq, event, status, attempts FROM webhook_deliveries WHERE webhook_id = :id ORDER BY seq",
                id=webhook_id,
            )
        ]

    def end_all(self, status: str = "delivered", *, attempts: int = 1) -> None:
        """End what is pending, with attempts that took half a second each."""
        for (delivery_id,) in self.execute("SELECT id FROM webhook_deliveries WHERE status = 'pending'"):
            for number in range(1, attempts + 1):
                self.execute(
                    "INSERT INTO webhook_attempts (delivery_id, number, status_code, error, seconds) "
                    "VALUES (:id, :number, 500, 'The response is 500.', 0.5)",
                    id=delivery_id,
                    number=number,
                )
        self.execute(
            "UPDATE webhook_deliveries SET status = :status, attempts = :attempts, ended_at = now() "
            "WHERE status = 'pending'",
            status=status,
            attempts=attempts,
        )


@pytest.fixture
def log(sessions: Sessions) -> Log:
    return Log(sessions)


def create(user: ApiUser, **fields: object) -> dict:
    response = user.post("/webhooks/", json={"url": URL} | fields)
    assert response.status_code == 201, response.text
    return response.json


def change(user: ApiUser, webhook: dict, **fields: object) -> dict:
    response = user.call("PATCH", f"/webhooks/{webhook['id']}/", json=fields)
    assert response.status_code == 200, response.text
    return response.json


def show(user: ApiUser, webhook: dict) -> dict:
    return user.get(f"/webhooks/{webhook['id']}/").json


def deliveries(user: ApiUser, webhook: dict, query: str = "") -> list[dict]:
    return user.get(f"/webhooks/{webhook['id']}/deliveries/{query}").json


def act(user: ApiUser, webhook: dict, action: str, **body: object):
    return user.post(f"/webhooks/{webhook['id']}/{action}/", **({"json": body} if body else {}))


def recover(user: ApiUser, webhook: dict, since: int) -> int:
    response = act(user, webhook, "recover", since=since)
    assert response.status_code == 202, response.text
    return response.json["deliveries"]


def finish(user: ApiUser, worker: Pipeline, count: int = 1) -> list[int]:
    """Submit prompts, and answer them in this order. Returns their ids."""
    ids = []
    for number in range(count):
        ids.append(user.submit(f"tide {number}"))
        worker.process(1)
    return ids


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
    def test_invalid_input_is_400_and_names_the_field(self, alice: ApiUser, body: dict, field: str) -> None:
        problem = assert_problem(alice.post("/webhooks/", json=body), 400)
        assert problem["errors"][0]["field"] == field
        assert alice.get("/webhooks/").json == []

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
            thread.join()
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
    def test_patch_changes_what_it_names_and_nothing_else(self, alice: ApiUser) -> None:
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
    def test_unknown_fields_nulls_and_wrong_types_are_400(self, alice: ApiUser, body: dict) -> None:
        webhook = create(alice)
        problem = assert_problem(alice.call("PATCH", f"/webhooks/{webhook['id']}/", json=body), 400)
        assert problem["errors"][0]["field"].partition(".")[0] == next(iter(body))
        assert "secret" not in show(alice, webhook)

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
        finishing.join()
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


class TestTest:
    def test_a_test_event_is_202_and_pending(self, alice: ApiUser, log: Log) -> None:
        webhook = create(alice, events=["prompt.failed"])
        response = act(alice, webhook, "test")
        assert response.status_code == 202
        delivery = response.json
        assert delivery["message_id"] == f"msg_{webhook['id']}_test_{delivery['id']}"
        expected = {"event": "webhook.test", "seq": None, "prompt_id": None, "status": "pending", "attempts": []}
        assert {name: delivery[name] for name in expected} == expected
        assert deliveries(alice, webhook) == [delivery]

    def test_one_test_event_is_pending_at_a_time(self, alice: ApiUser, log: Log) -> None:
        webhook = create(alice)
        act(alice, webhook, "test")
        problem = assert_problem(act(alice, webhook, "test"), 409)
        assert problem["type"] == "urn:promptwire:problem:delivery-pending"
        log.end_all()
        assert act(alice, webhook, "test").status_code == 202


class TestDeliveries:
    def test_the_log_shows_each_attempts_time_status_and_duration(
        self, alice: ApiUser, worker: Pipeline, log: Log
    ) -> None:
        webhook = create(alice)
        (prompt,) = finish(alice, worker)
        log.end_all("failed", attempts=2)
        (delivery,) = deliveries(alice, webhook)
        assert [attempt["number"] for attempt in delivery["attempts"]] == [1, 2]
        attempt = delivery["attempts"][0]
        assert datetime.fromisoformat(attempt.pop("at")).tzinfo is not None
        assert attempt == {"number": 1, "status_code": 500, "error": "The response is 500.", "seconds": 0.5}
        assert delivery == {
            "id": delivery["id"],
            "message_id": f"msg_{webhook['id']}_1",
            "event": "prompt.completed",
            "seq": 1,
            "prompt_id": prompt,
            "status": "failed",
            "attempts": delivery["attempts"],
            "next_attempt_at": None,
            "created_at": delivery["created_at"],
            "ended_at": delivery["ended_at"],
        }
        assert delivery["ended_at"] is not None

    def test_pages_are_newest_first_and_linked(self, alice: ApiUser, worker: Pipeline) -> None:
        webhook = create(alice)
        finish(alice, worker, 5)
        path, seen = f"/webhooks/{webhook['id']}/deliveries/?limit=2", []
        while path:
            response = alice.get(path)
            seen.append([delivery["seq"] for delivery in response.json])
            path = re.sub(r'<(.*)>; rel="next"', r"\1", response.headers.get("Link", ""))
        assert seen == [[5, 4], [3, 2], [1]]

    def test_a_status_selects_and_stays_in_the_link(self, alice: ApiUser, worker: Pipeline, log: Log) -> None:
        webhook = create(alice)
        finish(alice, worker, 2)
        log.end_all("failed")
        finish(alice, worker)
        assert [each["seq"] for each in deliveries(alice, webhook, "?status=pending")] == [3]
        response = alice.get(f"/webhooks/{webhook['id']}/deliveries/?status=failed&limit=1")
        assert "status=failed" in response.headers["Link"]

    def test_a_page_is_at_most_max_page_bytes(
        self, make_app: Callable[..., tuple[Flask, Services]], worker: Pipeline
    ) -> None:
        app, _ = make_app(max_page_bytes=1_000)
        user = ApiUser(app, "alice")
        webhook = create(user)
        finish(user, worker, 8)
        response = user.get(f"/webhooks/{webhook['id']}/deliveries/?limit=8")
        assert len(response.data) <= 1_000
        assert 1 <= len(response.json) < 8
        assert "Link" in response.headers

    def test_of_many_attempts_the_newest_20_are_shown(self, alice: ApiUser, worker: Pipeline, log: Log) -> None:
        webhook = create(alice)
        finish(alice, worker)
        log.end_all("failed", attempts=25)
        (delivery,) = deliveries(alice, webhook)
        assert [attempt["number"] for attempt in delivery["attempts"]] == list(range(6, 26))

    @pytest.mark.parametrize(
        "query", ["limit=0", "limit=101", "limit=x", "status=queued", "cursor=x", "cursor=YmVmb3JlOjA", "page=2"]
    )
    def test_an_invalid_query_is_400(self, alice: ApiUser, query: str) -> None:
        webhook = create(alice)
        assert_problem(alice.get(f"/webhooks/{webhook['id']}/deliveries/?{query}"), 400)


class TestReplay:
    @pytest.mark.parametrize("status", ["delivered", "failed"])
    def test_a_replay_is_202_pending_at_once_with_the_same_message_id_and_its_log(
        self, alice: ApiUser, worker: Pipeline, log: Log, status: str
    ) -> None:
        webhook = create(alice)
        finish(alice, worker)
        log.end_all(status, attempts=9)
        log.execute("UPDATE webhooks SET failures = 3, paused_until = now() + interval '1 hour'")
        log.execute("UPDATE webhook_deliveries SET created_at = created_at - interval '3 days'")
        (before,) = deliveries(alice, webhook)
        response = act(alice, webhook, f"deliveries/{before['id']}/replay")
        assert response.status_code == 202
        after = response.json
        assert (after["id"], after["message_id"]) == (before["id"], before["message_id"])
        assert (after["status"], after["ended_at"]) == ("pending", None)
        assert after["attempts"] == before["attempts"]
        # As for a new event, all of the retries are left.
        assert log.events(webhook["id"]) == [(1, "prompt.completed", "pending", 0)]
        assert datetime.fromisoformat(after["next_attempt_at"]) <= datetime.now(UTC) + timedelta(seconds=1)
        assert after["created_at"] > before["created_at"]
        assert show(alice, webhook)["status"] == "enabled"

    def test_a_pending_delivery_is_not_replayed(self, alice: ApiUser, worker: Pipeline, log: Log) -> None:
        webhook = create(alice)
        finish(alice, worker)
        log.execute("UPDATE webhook_deliveries SET attempts = 2")
        (delivery,) = deliveries(alice, webhook)
        problem = assert_problem(act(alice, webhook, f"deliveries/{delivery['id']}/replay"), 409)
        assert problem["type"] == "urn:promptwire:problem:delivery-pending"
        assert log.events(webhook["id"]) == [(1, "prompt.completed", "pending", 2)]

    def test_a_test_event_can_be_replayed(self, alice: ApiUser, log: Log) -> None:
        webhook = create(alice)
        delivery = act(alice, webhook, "test").json
        log.end_all()
        replayed = act(alice, webhook, f"deliveries/{delivery['id']}/replay").json
        assert (replayed["status"], replayed["message_id"]) == ("pending", delivery["message_id"])

    def test_the_event_of_a_deleted_prompt_is_409_with_a_sentence(
        self, alice: ApiUser, worker: Pipeline, log: Log
    ) -> None:
        webhook = create(alice)
        (prompt,) = finish(alice, worker)
        log.end_all()
        alice.delete(f"/prompts/{prompt}/")
        (delivery,) = deliveries(alice, webhook)
        problem = assert_problem(act(alice, webhook, f"deliveries/{delivery['id']}/replay"), 409)
        assert problem["type"] == "urn:promptwire:problem:event-not-kept"
        assert log.events(webhook["id"]) == [(1, "prompt.completed", "delivered", 1)]

    def test_an_event_that_the_feed_no_longer_has_is_409_unless_it_is_the_prompts_last(
        self, alice: ApiUser, worker: Pipeline, log: Log
    ) -> None:
        webhook = create(alice)
        prompt = alice.submit()
        alice.post(f"/prompts/{prompt}/cancel/")
        alice.post(f"/prompts/{prompt}/retry/")
        worker.process(1)
        log.end_all()
        log.execute("DELETE FROM feed")
        last, first = (
            act(alice, webhook, f"deliveries/{delivery['id']}/replay") for delivery in deliveries(alice, webhook)
        )
        assert last.status_code == 202
        assert assert_problem(first, 409)["type"] == "urn:promptwire:problem:event-not-kept"

    def test_a_purged_delivery_and_one_of_another_webhook_are_404(
        self, alice: ApiUser, worker: Pipeline, log: Log
    ) -> None:
        webhook, other = create(alice), create(alice)
        finish(alice, worker)
        log.end_all()
        (of_other,) = deliveries(alice, other)
        (delivery,) = deliveries(alice, webhook)
        log.execute("DELETE FROM webhook_deliveries WHERE id = :id", id=delivery["id"])
        for delivery_id in (delivery["id"], of_other["id"], 2**63 - 1):
            problem = assert_problem(act(alice, webhook, f"deliveries/{delivery_id}/replay"), 404)
            assert problem["type"] == "urn:promptwire:problem:delivery-not-found"


class TestRecover:
    def test_every_event_after_since_is_pending_again_with_rows_made_where_missing(
        self, alice: ApiUser, worker: Pipeline, log: Log
    ) -> None:
        finish(alice, worker, 2)
        webhook = create(alice)
        finish(alice, worker, 2)
        log.end_all("failed", attempts=9)
        assert recover(alice, webhook, 1) == 3
        assert log.events(webhook["id"]) == [(seq, "prompt.completed", "pending", 0) for seq in (2, 3, 4)]

    def test_events_up_to_since_stay_as_they_are(self, alice: ApiUser, worker: Pipeline, log: Log) -> None:
        webhook = create(alice)
        finish(alice, worker, 3)
        log.end_all()
        assert recover(alice, webhook, 2) == 1
        assert [event[2] for event in log.events(webhook["id"])] == ["delivered", "delivered", "pending"]

    def test_a_recovery_keeps_the_log_and_the_message_ids(self, alice: ApiUser, worker: Pipeline, log: Log) -> None:
        webhook = create(alice)
        finish(alice, worker)
        log.end_all()
        (before,) = deliveries(alice, webhook)
        recover(alice, webhook, 0)
        (after,) = deliveries(alice, webhook)
        assert (after["id"], after["message_id"]) == (before["id"], before["message_id"])
        assert after["attempts"] == before["attempts"]

    def test_a_webhook_gets_the_types_of_events_that_it_asked_for(
        self, alice: ApiUser, worker: Pipeline, log: Log
    ) -> None:
        webhook = create(alice, events=["prompt.cancelled"])
        finish(alice, worker)
        alice.post(f"/prompts/{alice.submit()}/cancel/")
        log.execute("DELETE FROM webhook_deliveries")
        assert recover(alice, webhook, 0) == 1
        assert log.events(webhook["id"]) == [(2, "prompt.cancelled", "pending", 0)]

    def test_deleted_prompts_and_their_deletions_are_left_out(self, alice: ApiUser, worker: Pipeline, log: Log) -> None:
        webhook = create(alice)
        first, _ = finish(alice, worker, 2)
        alice.delete(f"/prompts/{first}/")
        log.execute("DELETE FROM webhook_deliveries")
        assert recover(alice, webhook, 0) == 1
        assert log.events(webhook["id"]) == [(2, "prompt.completed", "pending", 0)]

    def test_each_end_of_a_retried_prompt_is_an_event(self, alice: ApiUser, worker: Pipeline, log: Log) -> None:
        webhook = create(alice)
        prompt = alice.submit()
        alice.post(f"/prompts/{prompt}/cancel/")
        alice.post(f"/prompts/{prompt}/retry/")
        worker.process(1)
        log.execute("DELETE FROM webhook_deliveries")
        assert recover(alice, webhook, 0) == 2
        assert [event[1] for event in log.events(webhook["id"])] == ["prompt.cancelled", "prompt.completed"]

    def test_events_that_finish_meanwhile_are_delivered_once(
        self, alice: ApiUser, worker: Pipeline, sessions: Sessions, log: Log
    ) -> None:
        webhook = create(alice)
        prompts = [alice.submit(f"{number}") for number in range(30)]
        finishing = threading.Thread(target=lambda: [worker.process(1) for _ in prompts])
        finishing.start()
        while finishing.is_alive():
            assert act(alice, webhook, "recover", since=0).status_code == 202
        finishing.join()
        assert [event[0] for event in log.events(webhook["id"])] == list(range(1, 31))
        assert {alice.show(prompt)["status"] for prompt in prompts} == {"completed"}

    def test_a_huge_feed_is_recovered_in_bounded_transactions(
        self, alice: ApiUser, worker: Pipeline, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(replay, "RECOVERED_AT_ONCE", 2)
        webhook = create(alice)
        finish(alice, worker, 5)
        log.end_all()
        assert recover(alice, webhook, 0) == 5
        assert [event[2] for event in log.events(webhook["id"])] == ["pending"] * 5
        transactions = log.execute("SELECT count(DISTINCT xmin::text) FROM webhook_deliveries")
        assert transactions == [(3,)]

    def test_the_newest_number_recovers_nothing(self, alice: ApiUser, worker: Pipeline) -> None:
        webhook = create(alice)
        assert recover(alice, webhook, 0) == 0
        finish(alice, worker)
        assert recover(alice, webhook, 1) == 0

    def test_a_since_beyond_the_newest_number_is_409_and_says_which_that_is(
        self, alice: ApiUser, worker: Pipeline
    ) -> None:
        webhook = create(alice)
        finish(alice, worker)
        for since in (2, 2**63 - 1):
            problem = assert_problem(act(alice, webhook, "recover", since=since), 409)
            assert problem["type"] == "urn:promptwire:problem:since-out-of-range"
            assert problem["detail"].endswith("your newest is 1.")

    def test_a_since_older_than_the_feed_is_409_and_says_since_when_to_recover(
        self, alice: ApiUser, worker: Pipeline, log: Log
    ) -> None:
        webhook = create(alice)
        finish(alice, worker, 4)
        log.end_all()
        log.execute("DELETE FROM feed WHERE seq <= 2")
        problem = assert_problem(act(alice, webhook, "recover", since=1), 409)
        assert "Recover since 2" in problem["detail"]
        assert recover(alice, webhook, 2) == 2
        log.execute("DELETE FROM feed")
        assert "Recover since 4" in assert_problem(act(alice, webhook, "recover", since=3), 409)["detail"]
        assert recover(alice, webhook, 4) == 0

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"since": None},
            {"since": -1},
            {"since": "1"},
            {"since": 1.5},
            {"since": True},
            {"since": 2**63},
            {"a": 1},
        ],
    )
    def test_an_invalid_since_is_400(self, alice: ApiUser, body: dict) -> None:
        webhook = create(alice)
        assert_problem(alice.post(f"/webhooks/{webhook['id']}/recover/", json=body), 400)


class TestDisabledWebhooks:
    @pytest.mark.parametrize("action", ["test", "recover", "replay"])
    def test_sending_again_to_a_disabled_webhook_is_409(
        self, alice: ApiUser, worker: Pipeline, log: Log, action: str
    ) -> None:
        webhook = create(alice)
        finish(alice, worker)
        log.end_all()
        (delivery,) = deliveries(alice, webhook)
        change(alice, webhook, disabled=True)
        path = {"replay": f"deliveries/{delivery['id']}/replay"}.get(action, action)
        problem = assert_problem(act(alice, webhook, path, **({"since": 0} if action == "recover" else {})), 409)
        assert problem["type"] == "urn:promptwire:problem:webhook-disabled"
        assert log.events(webhook["id"]) == [(1, "prompt.completed", "delivered", 1)]


class TestAccess:
    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_the_webhooks_of_others_do_not_exist(
        self, alice: ApiUser, bob: ApiUser, worker: Pipeline, log: Log, method: str, path: str
    ) -> None:
        webhook = create(alice)
        finish(alice, worker)
        log.end_all()
        (delivery,) = deliveries(alice, webhook)
        path = path.replace("/1/", f"/{delivery['id']}/")
        body = BODIES.get(path, BODIES.get(method))
        before = (show(alice, webhook), deliveries(alice, webhook))
        answers = [
            bob.call(method, f"/webhooks/{each}/{path}", **({"json": body} if body else {}))
            for each in (webhook["id"], 999_999)
        ]
        for answer in answers:
            assert_problem(answer, 404)
        assert answers[0].json == answers[1].json
        assert bob.get("/webhooks/").json == []
        assert (show(alice, webhook), deliveries(alice, webhook)) == before

    @pytest.mark.parametrize(("method", "path"), [("GET", None), ("POST", None), *ROUTES])
    def test_every_call_needs_a_token(self, app: Flask, method: str, path: str | None) -> None:
        url = "/webhooks/" if path is None else f"/webhooks/1/{path}"
        response = assert_problem(app.test_client().open(url, method=method), 401)
        assert response["type"] == "urn:promptwire:problem:invalid-token"

    @pytest.mark.parametrize(
        ("scopes", "reading", "writing"),
        [
            ({Scope.PROMPTS_READ, Scope.PROMPTS_WRITE}, 200, 201),
            ({Scope.PROMPTS_READ}, 200, 403),
            ({Scope.PROMPTS_WRITE}, 403, 403),  # it would get answers that it may not read
            ({Scope.KEYS_WRITE, Scope.ADMIN}, 403, 403),
        ],
    )
    def test_an_api_key_needs_to_read_prompts_and_for_changes_also_to_write_them(
        self,
        alice: ApiUser,
        services: Services,
        monkeypatch: pytest.MonkeyPatch,
        scopes: set,
        reading: int,
        writing: int,
    ) -> None:
        principal = Principal(alice.id, "alice", None, math.inf, key=KeyGrant(1, frozenset(scopes)))
        monkeypatch.setattr(services.authenticator, "authenticate_token", lambda _: principal)
        assert alice.get("/webhooks/").status_code == reading
        assert alice.post("/webhooks/", json={"url": URL}).status_code == writing

    def test_ids_out_of_range_are_400_or_404(self, alice: ApiUser) -> None:
        for webhook_id in ("0", str(2**63), "-1", "x", "9" * 400):
            assert alice.get(f"/webhooks/{webhook_id}/").status_code in (400, 404)

    def test_both_forms_of_a_path_work_without_a_redirect(self, alice: ApiUser) -> None:
        assert alice.post("/webhooks", json={"url": URL}).status_code == 201
        assert alice.get("/webhooks").status_code == 200

    def test_creating_deleting_rotating_and_redirecting_a_webhook_is_audited_without_its_url(
        self, alice: ApiUser, log: Log
    ) -> None:
        webhook = create(alice)
        act(alice, webhook, "rotate")
        change(alice, webhook, description="not audited")
        change(alice, webhook, url="https://other.example/")
        alice.delete(f"/webhooks/{webhook['id']}/")
        rows = log.execute("SELECT actor_id, action, user_id, details, address, request_id FROM audit ORDER BY id")
        assert [row.action for row in rows] == [
            f"webhook.{act}" for act in ("created", "rotated", "url_changed", "deleted")
        ]
        for row in rows:
            assert (row.actor_id, row.user_id, row.address) == (alice.id, alice.id, "127.0.0.1")
            assert row.details == {"webhook_id": webhook["id"]}
            assert row.request_id
