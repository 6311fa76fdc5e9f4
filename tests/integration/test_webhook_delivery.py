"""Deliveries to webhooks: order, signatures, retries, pauses."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from sqlalchemy import text
from standardwebhooks import WebhookVerificationError

from shared.db.engine import Sessions
from shared.settings import Settings
from shared.telemetry import metrics
from shared.webhooks import deliveries, results, schedule
from shared.webhooks import webhooks as endpoints
from shared.webhooks.deliveries import MAX_BYTES
from shared.webhooks.results import EndpointState, Result
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from tests.support.webhook_receiver import OK, Request, WebhookReceiver, answer, make_key
from tests.support.webhooks import HOUR, Webhooks, delivering
from worker.maintenance.cleaner import Cleaner
from worker.webhooks.byte_budget import ByteBudget
from worker.webhooks.deliverer import MAX_STARTING


@pytest.fixture
def webhooks(sessions: Sessions) -> Webhooks:
    return Webhooks(sessions)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def test_a_finished_prompt_is_delivered_as_its_resource_with_its_number(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/hook?token=x")
    (prompt_id,) = webhooks.finish(response_text="Forty-two.")
    with delivering(sessions):
        wait_until(lambda: webhooks.statuses(webhook_id) == ["delivered"])
    (request,) = receiver.received
    assert request.path == "/hook?token=x"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == f"msg_{webhook_id}_1"
    event, data = request.event, request.event["data"]
    assert set(event) == {"type", "timestamp", "data"}
    assert event["type"] == "prompt.completed"
    assert event["timestamp"] == data["completed_at"]
    assert data | {"id": prompt_id, "seq": 1, "user": "alice", "status": "completed"} == data
    assert (data["prompt_text"], data["response_text"], data["error"]) == ("Hi", "Forty-two.", None)
    (attempt,) = webhooks.attempts(webhook_id)
    assert (attempt.number, attempt.status_code, attempt.error) == (1, 200, None)
    assert 0 < attempt.seconds < 10


def test_hundred_events_come_in_order_over_one_connection(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    webhooks.finish(120)
    with delivering(sessions):
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == list(range(1, 121))
    assert receiver.connections == 1
    assert len({request.id for request in receiver.received}) == 120
    for request in receiver.received:
        request.verify()
    assert webhooks.get(webhook_id).leased_by is None


def test_a_failed_and_a_cancelled_prompt_are_delivered_as_they_were_at_their_numbers(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    failed, cancelled = webhooks.finish_otherwise("failed", "cancelled")
    webhooks.execute(
        "UPDATE prompts SET status = 'queued', error = NULL, completed_at = NULL, due_at = now()"
    )  # retried
    with delivering(sessions):
        wait_until(lambda: webhooks.statuses(webhook_id) == ["delivered"] * 2)
    events = [request.event for request in receiver.received]
    assert [event["type"] for event in events] == ["prompt.failed", "prompt.cancelled"]
    assert [event["data"]["status"] for event in events] == ["failed", "cancelled"]
    assert [event["data"]["id"] for event in events] == [failed, cancelled]
    assert [event["data"]["error"] for event in events] == ["It broke.", None]
    assert all(event["data"]["completed_at"] == event["timestamp"] for event in events)


def test_an_endpoint_gets_the_events_that_it_wants(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhooks.add(f"{receiver.url}/failed", events=["prompt.failed"])
    webhooks.add(f"{receiver.url}/all")
    webhooks.add(f"{receiver.url}/bob", user="bob")
    webhooks.finish()
    webhooks.finish_otherwise("failed")
    with delivering(sessions):
        wait_until(lambda: not webhooks.pending())
    assert (receiver.seqs("/failed"), receiver.seqs("/all"), receiver.seqs("/bob")) == ([2], [1, 2], [])


def test_a_delivery_is_signed_by_the_standard_webhooks_specification(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    key = make_key()
    webhooks.add(f"{receiver.url}/", key=key)
    webhooks.finish(response_text='Ünïcödé, 漢字, \U0001f600, \\ " \u2028 </script>')
    with delivering(sessions):
        wait_until(lambda: not webhooks.pending())
    (request,) = receiver.received
    request.verify(key)
    assert request.headers["webhook-signature"].startswith("v1,")
    with pytest.raises(WebhookVerificationError):
        request.verify(make_key())


def test_both_secrets_sign_until_the_old_one_expires(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    old, new = make_key(), make_key()
    webhooks.add(f"{receiver.url}/", key=new)
    webhooks.execute(
        "UPDATE webhooks SET previous_secret = :old, previous_secret_expires_at = now() + interval '24 hours'", old=old
    )
    with delivering(sessions):
        webhooks.finish()
        wait_until(lambda: not webhooks.pending())
        webhooks.pass_time(24 * HOUR)
        webhooks.finish()
        wait_until(lambda: not webhooks.pending())
    during, after = receiver.received
    during.verify(old)
    during.verify(new)
    after.verify(new)
    with pytest.raises(WebhookVerificationError):
        after.verify(old)


def test_a_test_event_is_sent_before_pending_events(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    webhooks.finish(deliveries.MAX_DELIVERIES + 1)
    delivery_id = webhooks.add_test_event(webhook_id)
    with delivering(sessions):
        wait_until(lambda: not webhooks.pending())
    first = receiver.received[0]
    assert first.event["type"] == "webhook.test"
    assert first.event["data"] == {"webhook_id": webhook_id}
    assert first.id == f"msg_{webhook_id}_test_{delivery_id}"
    first.verify()
    assert [request.seq for request in receiver.received[1:]] == list(range(1, deliveries.MAX_DELIVERIES + 2))


@pytest.mark.parametrize("is_reachable", [True, False], ids=["it answers 503", "it refuses connections"])
def test_a_receiver_that_is_down_for_an_hour_gets_everything_in_order(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions, is_reachable: bool
) -> None:
    url = receiver.url if is_reachable else "http://127.0.0.1:9"
    webhook_id = webhooks.add(f"{url}/")
    receiver.reply = lambda _: answer(503)
    down = 0.0
    with delivering(sessions):
        while down < HOUR:
            webhooks.finish(3)
            down += webhooks.end_pause(webhook_id)
        tried = [request.id for request in receiver.received]
        assert tried[:1] == ([f"msg_{webhook_id}_1"] if is_reachable else [])
        receiver.received.clear()
        receiver.reply = lambda _: OK
        webhooks.execute("UPDATE webhooks SET url = :url, paused_until = NULL", url=f"{receiver.url}/")
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == list(range(1, len(webhooks.deliveries(webhook_id)) + 1))
    assert len({*tried, *(request.id for request in receiver.received)}) == len(receiver.received)
    endpoint = webhooks.get(webhook_id)
    assert (endpoint.failures, endpoint.paused_until) == (0, None)


def test_a_delivery_is_tried_again_after_5_s_1_min_5_min_30_min_2_h_6_h_12_h_and_24_h_then_failed_and_shown(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda _: answer(500)
    webhooks.finish()
    waits = []
    with delivering(sessions):
        for _ in range(schedule.MAX_ATTEMPTS - 1):
            waits.append(webhooks.end_pause(webhook_id))
        wait_until(lambda: webhooks.statuses(webhook_id) == ["failed"])
    expected = [5, 60, 300, 1_800, 2 * HOUR, 6 * HOUR, 12 * HOUR, 24 * HOUR]
    assert waits == pytest.approx(expected, rel=schedule.JITTER, abs=2)
    assert waits != pytest.approx(expected, rel=0.001)  # the jitter
    attempts = webhooks.attempts(webhook_id)
    assert [attempt.number for attempt in attempts] == list(range(1, 10))
    assert {attempt.status_code for attempt in attempts} == {500}
    assert {attempt.error for attempt in attempts} == {"The endpoint answered 500."}
    assert len({request.id for request in receiver.received}) == 1
    for request in receiver.received:
        request.verify()


def _date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(("asked", "seconds"), [("3600", HOUR), ("9999999", 24 * HOUR), ("0", 5), ("soon", 5)])
def test_retry_after_is_obeyed_up_to_a_day(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions, asked: str, seconds: float
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda _: answer(429, f"Retry-After: {asked}")
    webhooks.finish(2)
    with delivering(sessions):
        wait = webhooks.end_pause(webhook_id)
        assert wait == pytest.approx(seconds, rel=schedule.JITTER if seconds == 5 else 0, abs=2)
        again = webhooks.end_pause(webhook_id)
    assert again == pytest.approx(max(seconds, 60), rel=schedule.JITTER if seconds == 5 else 0, abs=2)
    # No other event is sent instead of one for which the endpoint asks to wait.
    assert set(receiver.seqs()[:2]) == {1}


@pytest.mark.parametrize(("moment", "seconds"), [(2 * HOUR, 2 * HOUR), (-HOUR, 5)], ids=["ahead", "past"])
def test_retry_after_may_be_a_date(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions, moment: float, seconds: float
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda _: answer(503, f"Retry-After: {_date(moment)}")
    webhooks.finish()
    with delivering(sessions):
        wait = webhooks.end_pause(webhook_id)
    assert seconds * (1 - schedule.JITTER) - MAX_WAIT_SECONDS < wait < seconds * (1 + schedule.JITTER) + 2


def test_retry_after_is_obeyed_when_a_probe_gets_it(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda request: answer(400) if request.seq == 1 else answer(429, f"Retry-After: {HOUR:.0f}")
    webhooks.finish(2)
    with delivering(sessions):
        webhooks.end_pause(webhook_id)
        assert webhooks.end_pause(webhook_id) == pytest.approx(HOUR, abs=2)
    assert receiver.seqs()[:3] == [1, 1, 2]


def test_410_disables_an_endpoint_also_when_a_probe_gets_it(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda request: answer(400) if request.seq == 1 else answer(410)
    webhooks.finish(2)
    with delivering(sessions):
        webhooks.end_pause(webhook_id)
        wait_until(lambda: len(webhooks.attempts(webhook_id)) == 3)
    assert webhooks.get(webhook_id).disabled_reason == "The endpoint answered 410 Gone."


def test_410_disables_an_endpoint(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions, settings: Settings
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda _: answer(410)
    webhooks.finish(3)
    with delivering(sessions):
        wait_until(lambda: webhooks.get(webhook_id).disabled_at is not None)
        wait_until(lambda: webhooks.get(webhook_id).leased_by is None)
    assert webhooks.get(webhook_id).disabled_reason == "The endpoint answered 410 Gone."
    assert receiver.seqs() == [1]
    webhooks.finish()
    Cleaner(settings, sessions).round()
    assert webhooks.statuses(webhook_id) == ["failed"] * 3


def test_a_redirect_is_a_failure(webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda _: answer(307, f"Location: {receiver.url}/elsewhere")
    webhooks.finish()
    with delivering(sessions):
        webhooks.end_pause(webhook_id)
    (attempt, *_) = webhooks.attempts(webhook_id)
    assert attempt.status_code == 307
    assert attempt.error == "The endpoint answered 307, and redirects are not followed."
    assert {request.path for request in receiver.received} == {"/"}


def test_an_event_that_an_endpoint_refuses_twice_is_passed_by_the_others(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda request: answer(400) if request.seq == 2 else OK
    webhooks.finish(3)
    with delivering(sessions):
        webhooks.end_pause(webhook_id)
        wait_until(lambda: webhooks.statuses(webhook_id) == ["delivered", "pending", "delivered"])
        wait_until(lambda: webhooks.get(webhook_id).leased_by is None)
        assert (webhooks.get(webhook_id).failures, webhooks.get(webhook_id).paused_until) == (0, None)
        webhooks.pass_time(70)
        wait_until(lambda: len(webhooks.attempts(webhook_id)) == 5)  # it is refused for the third time
        webhooks.finish()
        wait_until(lambda: receiver.seqs() == [1, 2, 2, 3, 2, 4])  # which delays no other
        receiver.reply = lambda _: OK
        webhooks.pass_time(400)
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == [1, 2, 2, 3, 2, 4, 2]


def test_a_probe_that_fails_passes_nothing(webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda _: answer(500)
    webhooks.finish(4)
    with delivering(sessions):
        webhooks.end_pause(webhook_id)
        webhooks.end_pause(webhook_id)
        wait_until(lambda: len(receiver.received) == 5)
        wait_until(lambda: webhooks.get(webhook_id).leased_by is None)
        assert receiver.seqs() == [1, 1, 2, 1, 2]
        receiver.reply = lambda _: OK
        webhooks.end_pause(webhook_id)
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs()[5:] == [1, 2, 3, 4]


def test_a_deleted_prompt_is_not_sent(webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    _, deleted, emptied = webhooks.finish(3)
    webhooks.execute("DELETE FROM prompts WHERE id = :id", id=deleted)
    webhooks.execute("UPDATE prompts SET prompt_text = '', response_text = NULL WHERE id = :id", id=emptied)
    with delivering(sessions):
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == [1, 3]
    assert receiver.received[1].event["data"]["prompt_text"] == ""
    assert webhooks.statuses(webhook_id) == ["delivered", "failed", "delivered"]
    assert webhooks.attempts(webhook_id)[1].error == "The prompt was deleted, or its event is no longer kept."


def test_a_disabled_endpoint_gets_nothing(webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions) -> None:
    webhook_id, other = webhooks.add(f"{receiver.url}/disabled"), webhooks.add(f"{receiver.url}/")
    webhooks.finish()
    webhooks.execute("UPDATE webhooks SET disabled_at = now() WHERE id = :id", id=webhook_id)
    with delivering(sessions):
        wait_until(lambda: webhooks.statuses(other) == ["delivered"])
    assert receiver.seqs("/disabled") == []


def test_a_url_that_changes_during_a_pause_is_used_after_it(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/old")
    receiver.reply = lambda request: answer(404) if request.path == "/old" else OK
    webhooks.finish(2)
    with delivering(sessions):
        wait_until(lambda: webhooks.get(webhook_id).paused_until is not None)
        webhooks.execute("UPDATE webhooks SET url = :url", url=f"{receiver.url}/new")
        webhooks.end_pause(webhook_id)
        wait_until(lambda: not webhooks.pending())
    assert (receiver.seqs("/old"), receiver.seqs("/new")) == ([1], [1, 2])


@pytest.mark.parametrize("reply", [answer(410), answer(500)], ids=["410", "500"])
def test_what_an_old_url_answers_after_the_change_says_nothing_about_the_new_one(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions, reply: bytes
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/old")
    webhooks.finish(2)

    def change(request: Request) -> bytes:
        if request.path == "/new":
            return OK
        with sessions.begin() as session:
            user_id = webhooks.queue.user("alice")
            endpoints.change(session, user_id, webhook_id, {"url": f"{receiver.url}/new"})
        return reply

    receiver.reply = change
    with delivering(sessions):
        wait_until(lambda: webhooks.statuses(webhook_id) == ["delivered"] * 2)
    assert (receiver.seqs("/old"), receiver.seqs("/new")) == ([1], [1, 2])
    assert [attempt.status_code for attempt in webhooks.attempts(webhook_id)] == [200, 200]
    assert webhooks.get(webhook_id).disabled_at is None


def test_a_webhook_that_is_deleted_during_a_request_stops_nothing(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhooks.add(f"{receiver.url}/deleted")
    webhooks.finish()

    def delete(request: Request) -> bytes:
        if request.path == "/deleted":
            webhooks.execute("DELETE FROM webhooks WHERE url LIKE '%/deleted'")
        return OK

    receiver.reply = delete
    with delivering(sessions):
        wait_until(lambda: receiver.received)
        other = webhooks.add(f"{receiver.url}/")
        webhooks.finish()
        wait_until(lambda: webhooks.statuses(other) == ["delivered"])


def test_a_worker_that_was_killed_is_replaced_after_its_lease_and_sends_the_same_id(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    webhooks.finish(2)
    with sessions.begin() as session:
        assert deliveries.claim(session, "killed", limit=1) == [webhook_id]
        batch = deliveries.read(session, "killed", webhook_id)
    with delivering(sessions):
        other = webhooks.add(f"{receiver.url}/other", user="bob")
        webhooks.finish(user="bob")
        wait_until(lambda: webhooks.statuses(other) == ["delivered"])
        assert receiver.seqs() == []
        webhooks.pass_time(deliveries.LEASE.total_seconds())
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == [1, 2]
    ids = [request.id for request in receiver.received if request.path == "/"]
    assert ids == [each.event.message_id for each in batch.deliveries]


def test_a_result_counts_only_while_the_lease_holds(webhooks: Webhooks, sessions: Sessions) -> None:
    webhook_id = webhooks.add("http://127.0.0.1:9/")
    webhooks.finish()
    with sessions.begin() as session:
        deliveries.claim(session, "former", limit=1)
        batch = deliveries.read(session, "former", webhook_id)
    webhooks.pass_time(deliveries.LEASE.total_seconds())
    with sessions.begin() as session:
        assert deliveries.claim(session, "present", limit=1) == [webhook_id]
        result = Result(webhook_id, batch.deliveries[0].id, "delivered", batch.read_at, 0.1, 200)
        results.record(session, "former", [result], {webhook_id: EndpointState(3, 60, is_released=True)})
        assert deliveries.read(session, "former", webhook_id) is None
    assert webhooks.statuses(webhook_id) == ["pending"]
    assert webhooks.attempts(webhook_id) == []
    assert (webhooks.get(webhook_id).failures, webhooks.get(webhook_id).leased_by) == (0, "present")


def test_a_worker_that_stops_releases_its_endpoints(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    receiver.reply = lambda _: None
    webhooks.finish(2)
    with delivering(sessions):
        wait_until(lambda: receiver.received)
    endpoint = webhooks.get(webhook_id)
    assert (endpoint.leased_by, endpoint.leased_until, endpoint.paused_until) == (None, None, None)
    assert webhooks.attempts(webhook_id) == []
    receiver.reply = lambda _: OK
    with delivering(sessions):
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == [1, 1, 2]
    assert len({request.id for request in receiver.received}) == 2


def test_a_request_that_ends_while_the_worker_stops_is_recorded(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    stopping = threading.Event()

    def reply(_: Request) -> bytes:
        stopping.wait(MAX_WAIT_SECONDS)
        return OK

    receiver.reply = reply
    webhooks.finish(2)
    with delivering(sessions) as deliverer:
        wait_until(lambda: receiver.received)
        threading.Timer(0.2, stopping.set).start()
        deliverer.stop()
    assert webhooks.statuses(webhook_id) == ["delivered", "pending"]
    assert webhooks.get(webhook_id).leased_by is None


def test_deliveries_wait_while_postgres_refuses_and_nothing_is_lost(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhooks.add(f"{receiver.url}/")
    webhooks.finish(3)
    with sessions() as blocking:
        blocking.execute(text("LOCK TABLE webhook_attempts IN EXCLUSIVE MODE"))
        with delivering(sessions):
            wait_until(lambda: len(receiver.received) == deliveries.FIRST_DELIVERIES)
            assert webhooks.pending() == 3
            blocking.rollback()
            wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == [1, 2, 3]


def test_old_deliveries_are_deleted_with_their_attempts(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions, settings: Settings
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    webhooks.finish()
    with delivering(sessions):
        wait_until(lambda: not webhooks.pending())
    webhooks.pass_time(24 * HOUR * settings.feed_retention_days + 1)
    webhooks.finish()
    Cleaner(settings, sessions).round()
    assert [row.seq for row in webhooks.deliveries(webhook_id)] == [2]
    assert webhooks.attempts(webhook_id) == []


def test_events_that_waited_for_the_whole_schedule_of_a_dead_endpoint_fail(
    webhooks: Webhooks, sessions: Sessions, settings: Settings
) -> None:
    webhook_id = webhooks.add("http://127.0.0.1:9/")
    webhooks.finish(2)
    webhooks.pass_time(schedule.WHOLE.total_seconds() + 1)
    webhooks.finish()
    Cleaner(settings, sessions).round()
    assert webhooks.statuses(webhook_id) == ["pending"] * 3
    webhooks.execute("UPDATE webhooks SET failures = :failures", failures=schedule.MAX_ATTEMPTS)
    Cleaner(settings, sessions).round()
    assert webhooks.statuses(webhook_id) == ["failed", "failed", "pending"]


def test_a_replayed_delivery_has_the_same_id_and_its_log_goes_on(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    webhooks.finish()
    with delivering(sessions):
        wait_until(lambda: not webhooks.pending())
        webhooks.execute("UPDATE webhook_deliveries SET status = 'pending', attempts = 0, ended_at = NULL")
        wait_until(lambda: not webhooks.pending())
    first, second = receiver.received
    assert first.id == second.id
    assert first.body == second.body
    assert [attempt.number for attempt in webhooks.attempts(webhook_id)] == [1, 2]


def test_1_000_endpoints_that_never_answer_delay_no_other_endpoint(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    """Another's delivery took 0.6 s beside them, of which half a second are the poll."""
    receiver.reply = lambda request: OK if request.path == "/alive" else None
    webhooks.execute(
        "INSERT INTO webhooks (user_id, url, secret) SELECT :user_id, :url, :key FROM generate_series(1, 1000)",
        user_id=webhooks.queue.user("bob"),
        url=f"{receiver.url}/dead",
        key=make_key(),
    )
    webhooks.finish(user="bob")
    with delivering(sessions, timeout=2 * MAX_WAIT_SECONDS):
        wait_until(lambda: len(receiver.received) == 1_000)
        alive = webhooks.add(f"{receiver.url}/alive")
        webhooks.finish()
        wait_until(lambda: webhooks.statuses(alive) == ["delivered"])
        assert webhooks.pending() == 1_000  # all of the others are still waited for


def test_users_take_turns_so_one_with_many_due_endpoints_delays_nobody(webhooks: Webhooks, sessions: Sessions) -> None:
    for user, endpoints_count in (("alice", 1), ("bob", 30), ("carol", 2)):
        for _ in range(endpoints_count):
            webhooks.add("http://127.0.0.1:9/", user)
        webhooks.finish(user=user)
    with sessions.begin() as session:
        first = deliveries.claim(session, "test", limit=3)
    owners = webhooks.execute("SELECT user_id FROM webhooks WHERE id = ANY(:ids)", ids=first)
    assert {owner.user_id for owner in owners} == {webhooks.queue.user(name) for name in ("alice", "bob", "carol")}


def test_endpoints_that_have_failed_leave_places_for_the_others(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    receiver.reply = lambda request: OK if request.path == "/alive" else None
    for i in range(8):
        webhooks.add(f"{receiver.url}/dead", user=f"user-{i}")
        webhooks.finish(user=f"user-{i}")
    webhooks.execute("UPDATE webhooks SET failures = 1")
    alive = webhooks.add(f"{receiver.url}/alive")
    with delivering(sessions, timeout=2 * MAX_WAIT_SECONDS, max_endpoints=8):
        wait_until(lambda: len(receiver.received) == 6)
        webhooks.finish()
        wait_until(lambda: webhooks.statuses(alive) == ["delivered"])
    assert len(receiver.received) == 7


def test_events_beyond_the_bound_of_memory_are_sent_later(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    webhook_id = webhooks.add(f"{receiver.url}/")
    webhooks.finish(5, response_text="x" * MAX_BYTES)
    with sessions.begin() as session:
        deliveries.claim(session, "test", limit=1)
        batch = deliveries.read(session, "test", webhook_id)
        assert len(batch.deliveries) == 2
        assert batch.has_more
        results.record(session, "test", [], {webhook_id: EndpointState(is_released=True)})
    with delivering(sessions):
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == [1, 2, 3, 4, 5]


def test_a_reservation_of_more_bytes_than_are_free_waits() -> None:
    async def run() -> list[str]:
        budget, happened = ByteBudget(10), []

        async def use(name: str, most: int, size: int) -> None:
            async with budget.reserve(most) as keep:
                keep(size)
                happened.append(f"{name} begins")
                await asyncio.sleep(0.01)
                happened.append(f"{name} ends")

        await asyncio.gather(use("first", 10, 4), use("second", 6, 6), use("third", 5, 5))
        return happened

    happened = asyncio.run(run())
    assert happened[:2] == ["first begins", "second begins"]
    assert happened.index("third begins") > 1 + happened.index("first ends")


def test_a_slow_receiver_gets_one_event_after_the_other(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    """It does not wait for the next poll, although URL and prompts are read again meanwhile."""

    def reply(_: Request) -> bytes:
        time.sleep(0.4)
        return OK

    receiver.reply = reply
    webhooks.add(f"{receiver.url}/")
    webhooks.finish(5)
    with delivering(sessions, poll_seconds=10 * MAX_WAIT_SECONDS):
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == [1, 2, 3, 4, 5]


def test_deliveries_are_counted(webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions) -> None:
    before = _outcomes()
    receiver.reply = lambda request: OK if request.path == "/" else answer(500)
    for url in (f"{receiver.url}/", f"{receiver.url}/broken", "http://127.0.0.1:9/"):
        webhooks.add(url)
    webhooks.finish()
    with delivering(sessions):
        wait_until(lambda: len(webhooks.execute("SELECT FROM webhook_attempts")) == 3)
    counted = {name: count - before[name] for name, count in _outcomes().items()}
    assert counted == {"delivered": 1, "refused": 1, "unreachable": 1, "given_up": 0}


def _outcomes() -> dict[str, float]:
    metrics.flush()
    (family,) = metrics._webhook_attempts.collect()
    return {sample.labels["outcome"]: sample.value for sample in family.samples if sample.name.endswith("_total")}


def test_a_prompt_finishes_while_its_webhook_is_deleted(webhooks: Webhooks, sessions: Sessions) -> None:
    webhooks.add("http://127.0.0.1:9/")
    with ThreadPoolExecutor() as pool, sessions() as deleting:
        deleting.execute(text("DELETE FROM webhooks"))
        finishing = pool.submit(webhooks.finish)
        wait_until(lambda: webhooks.execute("SELECT FROM pg_locks WHERE NOT granted"), what="the wait for the lock")
        deleting.commit()
        assert len(finishing.result(MAX_WAIT_SECONDS)) == 1
    assert webhooks.pending() == 0


def test_bursts_of_finishes_by_several_workers_arrive_in_the_order_of_seq_without_a_gap(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions
) -> None:
    ids = [webhooks.add(f"{receiver.url}/{i}") for i in range(3)]
    with delivering(sessions), delivering(sessions), ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda count: webhooks.finish(count), [1, 3, 2, 5] * 10))
        wait_until(lambda: not webhooks.pending())
    for i in range(len(ids)):
        assert receiver.seqs(f"/{i}") == list(range(1, 111))


def test_no_more_than_fifty_endpoints_begin_at_a_time_so_one_that_is_due_later_waits_for_no_more(
    webhooks: Webhooks, receiver: WebhookReceiver, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(MAX_STARTING + 10):
        webhooks.add(f"{receiver.url}/")
    webhooks.finish()
    may_read, read = threading.Event(), deliveries.read

    def read_later(*arguments: Any, **options: Any) -> Any:
        may_read.wait(MAX_WAIT_SECONDS)
        return read(*arguments, **options)

    monkeypatch.setattr(deliveries, "read", read_later)
    leased = "SELECT FROM webhooks WHERE leased_by IS NOT NULL"
    with delivering(sessions):
        wait_until(lambda: webhooks.execute(leased))
        time.sleep(0.2)  # for two polls
        assert len(webhooks.execute(leased)) == MAX_STARTING
        may_read.set()
        wait_until(lambda: not webhooks.pending())
