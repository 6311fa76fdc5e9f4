"""Real Celery workers: what they do when they are told to stop, and with messages that nobody of ours sent."""

import signal

from kombu import Connection

from shared.queue import PROCESS_PROMPTS, QUEUE, make_celery
from shared.settings import Settings
from tests.support import processes
from tests.support.processes import RemoteUser
from tests.support.servers import Servers, wait_until


def test_a_worker_that_must_stop_hands_its_prompt_back_and_another_goes_on(
    servers: Servers, settings: Settings, url: str
) -> None:
    """The lease is a minute: without the handing back, the other worker would wait for it."""
    changed = servers.changed(
        settings,
        generator="tests.support.providers:commanded",
        soft_shutdown_seconds=0.5,
        reaper_seconds=0.5,
        lease_seconds=60,
    )
    control = make_celery(settings).control
    with processes.worker(changed, name="one") as one, processes.worker(changed, name="two") as two:
        wait_until(lambda: len(control.ping(timeout=0.5)) == 2, what="both workers answering")
        alice = RemoteUser(url)
        prompt_id = alice.submit("slow 30")
        wait_until(lambda: alice.show(prompt_id)["status"] == "processing", what="the claim")
        active = control.inspect(timeout=1).active()
        busy = one if active["one@test"] else two
        busy.send_signal(signal.SIGTERM)
        busy.wait(timeout=15)
        shown = alice.wait(prompt_id)
        assert (shown["status"], shown["attempt"]) == ("completed", 2)


def test_forged_and_duplicate_messages_do_no_harm(settings: Settings, url: str) -> None:
    celery = make_celery(settings)
    with processes.worker(settings):
        alice = RemoteUser(url)
        first = alice.submit("first")
        assert alice.wait(first)["attempt"] == 1
        for args in ([[first, first, 10**12, 2**63 - 1]], [["1"]], [None], [[-1]], [[2**63]], [[[1]]], [], [[1], [2]]):
            celery.send_task(PROCESS_PROMPTS, args=args)
        celery.send_task("os.system", args=["true"])
        with Connection(settings.redis_url.get_secret_value()) as connection, connection.SimpleQueue(QUEUE) as queue:
            queue.put({"task": PROCESS_PROMPTS, "args": [[first]]}, serializer="pickle")
            queue.put("not a task")
        second = alice.submit("second")
        assert alice.wait(second)["status"] == "completed"
        assert alice.show(first)["attempt"] == 1
