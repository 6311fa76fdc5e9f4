"""Real Celery workers: what they do when they are told to stop, and with messages that nobody of ours sent."""

import signal

from kombu import Connection

from shared.queue import PROCESS_PROMPTS, QUEUE, make_celery
from shared.settings import Settings
from tests.support import processes
from tests.support.processes import RemoteUser
from tests.support.servers import wait_until


def test_a_worker_that_must_stop_hands_its_prompt_back_and_another_goes_on(settings: Settings) -> None:
    """The lease is a minute: without the handing back, the other worker would wait for it."""
    settings = settings.model_copy(
        update={
            "generator": "tests.support.providers:commanded",
            "soft_shutdown_seconds": 0.5,
            "reaper_seconds": 0.5,
            "lease_seconds": 60,
        }
    )
    settings.model_fields_set.update(("generator", "soft_shutdown_seconds", "reaper_seconds", "lease_seconds"))
    with processes.api(settings) as url, processes.worker(settings) as stopped:
        alice = RemoteUser(url)
        prompt_id = alice.submit("slow 60")
        wait_until(lambda: alice.show(prompt_id)["status"] == "processing", what="the claim")
        with processes.worker(settings):
            wait_until(lambda: len(make_celery(settings).control.ping(timeout=0.5)) == 2, what="a second worker")
            stopped.send_signal(signal.SIGTERM)
            stopped.wait(timeout=15)
            shown = alice.http.get(f"/prompts/{prompt_id}/", headers={"Prefer": "wait=30"}).json()
            assert (shown["status"], shown["attempt"]) == ("completed", 2)


def test_forged_and_duplicate_messages_do_no_harm(settings: Settings) -> None:
    celery = make_celery(settings)
    with processes.api(settings) as url, processes.worker(settings):
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
