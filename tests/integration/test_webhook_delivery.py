"""Deliveries to webhooks: order, signatures, retries, pauses."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from shared.db.engine import Sessions
from shared.webhooks import schedule
from tests.support.servers import wait_until
from tests.support.webhooks import KEY, OK, Request, WebhookReceiver, Webhooks, answer, delivering, make_key


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
    assert all(request.is_signed() for request in receiver.received)
    assert webhooks.get(webhook_id).leased_by is None
