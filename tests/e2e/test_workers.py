"""Celery workers as processes: how they stop, and how they report that they work."""

import signal
from pathlib import Path

import pytest

from shared.messaging.queue import make_celery
from shared.settings import Settings
from tests.support import processes
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until


@pytest.fixture(scope="module")
def settings(own_settings: Settings) -> Settings:
    return own_settings


def test_a_worker_that_must_stop_hands_its_prompt_back_and_another_goes_on(
    servers: Servers, settings: Settings, url: str, tmp_path: Path
) -> None:
    """The lease is longer than the test may take: the other worker gets the prompt only because it is handed back."""
    changed = servers.changed(
        settings,
        generator="tests.support.providers:commanded",
        soft_shutdown_seconds=0.5,
        reaper_seconds=0.5,
        lease_seconds=10 * MAX_WAIT_SECONDS,
    )
    control = make_celery(settings).control
    answer = tmp_path / "answer"
    answer.touch()
    with processes.worker(changed, name="one") as one, processes.worker(changed, name="two") as two:
        wait_until(lambda: len(control.ping(timeout=0.5)) == 2, what="both workers answering")
        alice = RemoteUser(url)
        prompt_id = alice.submit(f"copy {answer}")  # takes until the file has a line

        def busy() -> list[str]:
            active = control.inspect(timeout=1).active() or {}
            return [name for name, tasks in active.items() if tasks]

        wait_until(busy, what="the claim")
        first = one if busy() == ["one@test"] else two
        first.send_signal(signal.SIGTERM)
        first.wait(timeout=MAX_WAIT_SECONDS)
        answer.write_text("whole\n")
        shown = alice.wait(prompt_id)
        assert (shown["status"], shown["attempt"]) == ("completed", 2)


def test_a_worker_gives_signs_of_life_also_after_its_broker_was_unavailable(
    servers: Servers, settings: Settings, tmp_path: Path
) -> None:
    heartbeat = tmp_path / "heartbeat"

    def beats(times: int) -> None:
        for _ in range(times):
            heartbeat.unlink(missing_ok=True)
            wait_until(heartbeat.exists, what="the heartbeat")

    with processes.worker(servers.changed(settings, heartbeat_file=str(heartbeat))):
        beats(1)
        with servers.valkey_process.killed():
            pass
        beats(2)
