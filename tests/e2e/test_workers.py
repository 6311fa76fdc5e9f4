"""Real Celery workers: what they do when they are told to stop, and with messages that nobody of ours sent."""

import signal
from pathlib import Path

from shared.messaging.queue import make_celery
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


def test_a_worker_gives_signs_of_life_also_after_its_broker_was_away(
    servers: Servers, settings: Settings, tmp_path: Path
) -> None:
    heartbeat = tmp_path / "heartbeat"

    def beats(times: int) -> None:
        for _ in range(times):
            heartbeat.unlink(missing_ok=True)
            wait_until(heartbeat.exists, 40, "the heartbeat")

    with processes.worker(servers.changed(settings, heartbeat_file=str(heartbeat))):
        beats(1)
        with servers.valkey_process.killed():
            pass
        beats(2)
