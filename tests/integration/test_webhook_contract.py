"""Webhooks from the call that adds one to what its receiver gets, as the contract describes them."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from standardwebhooks import Webhook as Verifier

from api.services import Services
from shared.db.engine import Sessions
from tests.support.client import ApiUser
from tests.support.servers import wait_until
from tests.support.webhook_calls import act, create, deliveries, finish, recover
from tests.support.webhook_receiver import OK, WebhookReceiver, answer
from tests.support.webhooks import Webhooks, delivering
from worker.pipeline import Pipeline


@pytest.fixture
def alice(make_app: Callable[..., tuple[Flask, Services]]) -> ApiUser:
    """A user whose webhooks may have private addresses."""
    return ApiUser(make_app(webhook_allow_private=True)[0], "alice")


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


def test_the_webhook_id_is_constant_over_retries_replays_and_recoveries(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, receiver: WebhookReceiver
) -> None:
    webhooks = Webhooks(sessions)
    webhook = create(alice, url=f"{receiver.url}/")
    receiver.reply = lambda _: answer(503)
    finish(alice, worker)
    with delivering(sessions):
        webhooks.end_pause(webhook["id"])
        wait_until(lambda: len(webhooks.attempts(webhook["id"])) == 2)
        receiver.reply = lambda _: OK
        webhooks.end_pause(webhook["id"])
        wait_until(lambda: not webhooks.pending())
        (delivery,) = deliveries(alice, webhook)
        assert act(alice, webhook, f"deliveries/{delivery['id']}/replay").status_code == 202
        wait_until(lambda: not webhooks.pending())
        webhooks.execute("DELETE FROM webhook_deliveries")  # as the retention does
        assert recover(alice, webhook, 0) == 1
        wait_until(lambda: not webhooks.pending())
    assert len(receiver.received) == 5
    assert {request.id for request in receiver.received} == {delivery["message_id"]}
    assert len({request.body for request in receiver.received}) == 1
    for request in receiver.received:
        Verifier(webhook["secret"]).verify(request.body, request.headers)


def test_a_receiver_sees_a_gap_in_seq_and_recovers_by_since(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, receiver: WebhookReceiver
) -> None:
    webhooks = Webhooks(sessions)
    webhook = create(alice, url=f"{receiver.url}/")
    with delivering(sessions):
        finish(alice, worker, 2)
        wait_until(lambda: receiver.seqs() == [1, 2])
        alice.call("PATCH", f"/webhooks/{webhook['id']}/", json={"disabled": True})
        finish(alice, worker, 3)
        alice.call("PATCH", f"/webhooks/{webhook['id']}/", json={"disabled": False})
        finish(alice, worker)
        wait_until(lambda: len(receiver.received) == 3)
        assert receiver.seqs() == [1, 2, 6]  # the gap
        recover(alice, webhook, since=2)
        wait_until(lambda: not webhooks.pending())
    assert receiver.seqs() == [1, 2, 6, 3, 4, 5, 6]
    assert len({request.id for request in receiver.received}) == 6


def test_after_a_rotation_both_secrets_sign_for_24_hours(
    alice: ApiUser, worker: Pipeline, sessions: Sessions, receiver: WebhookReceiver
) -> None:
    webhooks = Webhooks(sessions)
    webhook = create(alice, url=f"{receiver.url}/")
    old, new = webhook["secret"], act(alice, webhook, "rotate").json["secret"]
    with delivering(sessions):
        for hours in (0, 23.9, 0.1):
            webhooks.pass_time(hours * 3_600)
            finish(alice, worker)
            wait_until(lambda: not webhooks.pending())
    signatures = [request.headers["webhook-signature"].split(" ") for request in receiver.received]
    assert [len(each) for each in signatures] == [2, 2, 1]
    for request in receiver.received:
        Verifier(new).verify(request.body, request.headers)
    for request in receiver.received[:2]:
        Verifier(old).verify(request.body, request.headers)
