"""Worker hosts are killed while they deliver to webhooks."""

import random
import time

from shared.db.engine import make_engine, make_sessions
from shared.webhooks.deliveries import LEASE
from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import Run, under_load
from tests.faults.scale import Scale
from tests.support.webhook_receiver import OK, Expected, Request, WebhookReceiver, count, make_key
from tests.support.webhooks import Webhooks

#: For starting a worker host, and delivering what has piled up.
_CATCH_UP_SECONDS = 30.0
#: How many requests to wait for before a kill.
_REQUESTS = 20


def webhook_kills(cluster: Cluster, scale: Scale) -> Outcome:
    """Kill worker hosts while they deliver the events of each user to an endpoint of that user.

    Recovery: from the last kill until everything is delivered.
    """
    rng = random.Random()

    def reply(_: Request) -> bytes:
        time.sleep(rng.uniform(0, 0.002))
        return OK

    engine = make_engine(cluster.settings, application_name="faults")
    webhooks = Webhooks(make_sessions(engine))
    with WebhookReceiver(reply) as receiver:
        with under_load(cluster, "kill -9 of hosts that deliver to webhooks", share_of_slow=0) as run:
            run.may_exit = True  # a Celery worker exits if a child is killed while it starts
            expected = _add_endpoints(webhooks, run, receiver.url)
            for _ in range(scale.webhook_kills):
                seen = len(receiver.received)
                run.expect(lambda seen=seen: len(receiver.received) > seen + _REQUESTS, 120, "deliveries to interrupt")
                host = rng.choice(cluster.workers)
                host.kill()
                killed = time.monotonic()
                run.note_fault()
                host.start()
        if not scale.waits_for_webhook_leases:
            webhooks.pass_time(LEASE.total_seconds())
        run.wait(lambda: not webhooks.pending(), LEASE.total_seconds() + _CATCH_UP_SECONDS)
        run.outcome.recoveries = [time.monotonic() - killed]
        for user in run.users:
            endpoint = expected[f"/{user.username}"]
            first = webhooks.deliveries(endpoint.webhook_id)[0].seq  # the load began before the endpoints were added
            endpoint.seqs = [event.seq for event in run.recorder.feed(user.id) if event.seq >= first]
        counts = count(receiver.received, expected)
    engine.dispose()
    outcome = run.outcome
    outcome.require(not counts.broken(), f"deliveries: {counts}")
    outcome.require(counts.requests > _REQUESTS, "there were no deliveries")
    outcome.bound(outcome.slowest_recovery, LEASE.total_seconds() + _CATCH_UP_SECONDS, "delivering everything")
    outcome.notes = (
        f"{counts.requests} deliveries: 0 lost, unsigned, misdelivered or out of order; "
        f"{counts.repeated} repeated, with the same webhook-id"
    )
    return outcome


def _add_endpoints(webhooks: Webhooks, run: Run, url: str) -> dict[str, Expected]:
    """Add an endpoint for each user. Returns them by their paths."""
    endpoints = {}
    for user in run.users:
        path, key = f"/{user.username}", make_key()
        webhook_id = webhooks.add(url + path, user.username, key=key, user_id=user.id)
        endpoints[path] = Expected(webhook_id, user.username, key, [])
    return endpoints
