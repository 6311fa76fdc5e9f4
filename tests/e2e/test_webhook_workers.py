"""Workers as processes that deliver to webhooks, and are killed and stopped meanwhile."""

import random
import signal
import time

import pytest

from shared.db.engine import Sessions
from shared.settings import Settings
from shared.webhooks.deliveries import LEASE
from tests.support import processes
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until
from tests.support.webhook_receiver import OK, Expected, Request, WebhookReceiver, count, make_key
from tests.support.webhooks import Webhooks, delivering

USERS = ("alice", "bob", "carol")
EVENTS = 150


@pytest.fixture(scope="module")
def settings(own_settings: Settings, servers: Servers) -> Settings:
    return servers.changed(own_settings, webhook_allow_private=True, soft_shutdown_seconds=0.5)


def test_deliveries_outlive_workers_that_are_killed_and_stopped(settings: Settings, sessions: Sessions) -> None:
    """Nothing is lost, unsigned or sent to another endpoint. What is repeated has the same `webhook-id`."""
    webhooks = Webhooks(sessions)
    rng = random.Random()

    def reply(_: Request) -> bytes:
        time.sleep(rng.uniform(0, 0.005))  # all endpoints take one after the other
        return OK

    with WebhookReceiver(reply) as receiver:
        keys = {user: make_key() for user in USERS}
        ids = {user: webhooks.add(f"{receiver.url}/{user}", user, key=key) for user, key in keys.items()}
        for user in USERS:
            webhooks.finish(EVENTS, user)
        killed = processes.start(processes.worker_command("killed", 1), settings)
        wait_until(lambda: len(receiver.received) > EVENTS / 2, what="deliveries of the first worker")
        processes.kill(killed)
        webhooks.pass_time(LEASE.total_seconds())
        threads = settings.model_copy(update={"worker_pool": "threads"})
        stopped = processes.start(processes.worker_command("stopped", None), threads)
        seen = len(receiver.received)
        wait_until(lambda: len(receiver.received) > seen + EVENTS / 2, what="deliveries of the second worker")
        stopped.send_signal(signal.SIGTERM)
        stopped.wait(MAX_WAIT_SECONDS)
        assert all(webhooks.get(webhook_id).leased_by is None for webhook_id in ids.values())
        with delivering(sessions):
            wait_until(lambda: not webhooks.pending(), what="the last delivery")
        expected = {f"/{user}": Expected(ids[user], user, keys[user], range(1, EVENTS + 1)) for user in USERS}
        counts = count(receiver.received, expected)
    assert counts.broken() == {}, counts
