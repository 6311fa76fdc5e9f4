"""The log of a webhook, and sending again: a test, a replay, a recovery. No worker delivers here."""

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask

from api.services import Services
from shared.db.engine import Sessions
from shared.webhooks import replay
from tests.support.client import ApiUser, assert_problem
from tests.support.servers import MAX_WAIT_SECONDS
from tests.support.webhook_calls import Log, act, change, create, deliveries, finish, recover, show
from worker.pipeline import Pipeline


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
            "batch_id": None,
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
    def test_an_invalid_query_is_400(self, shared_alice: ApiUser, shared_webhook: dict, query: str) -> None:
        assert_problem(shared_alice.get(f"/webhooks/{shared_webhook['id']}/deliveries/?{query}"), 400)


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
        finishing.join(MAX_WAIT_SECONDS)
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
    def test_an_invalid_since_is_400(self, shared_alice: ApiUser, shared_webhook: dict, body: dict) -> None:
        assert_problem(shared_alice.post(f"/webhooks/{shared_webhook['id']}/recover/", json=body), 400)


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
