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


@pytest.fixture
def changed(servers: Servers, settings: Settings) -> Settings:
    """The lease is longer than a test may take, so another worker gets a prompt only if it is released."""
    return servers.changed(
        settings,
        generator="tests.support.providers:commanded",
        soft_shutdown_seconds=0.5,
        reaper_seconds=0.5,
        lease_seconds=10 * MAX_WAIT_SECONDS,
    )


def wait_until_ready(settings: Settings, *names: str) -> None:
    control = make_celery(settings).control
    wanted = {f"{name}@test" for name in names}
    wait_until(
        lambda: wanted <= {name for answer in control.ping(timeout=0.5) for name in answer}, what="the workers starting"
    )


def wait_until_busy(settings: Settings, name: str) -> None:
    control = make_celery(settings).control
    wait_until(lambda: (control.inspect(timeout=1).active() or {}).get(f"{name}@test"), what="the claim")


def test_a_worker_that_stops_releases_its_prompt_and_another_answers_it(
    servers: Servers, changed: Settings, url: str, tmp_path: Path
) -> None:
    """From a worker with processes to one with threads and back. With threads, a second signal stops it at once."""
    answer = tmp_path / "answer"
    answer.touch()
    alice = RemoteUser(url)
    with_threads = {"worker_pool": "threads", "soft_shutdown_seconds": 10 * MAX_WAIT_SECONDS}
    two = servers.changed(changed, **with_threads)
    with processes.worker(changed, name="one") as first, processes.worker(two, name="two") as second:
        wait_until_ready(changed, "one", "two")
        second.send_signal(signal.SIGSTOP)
        prompt_id = alice.submit(f"copy {answer}")  # takes until the file has a line
        wait_until_busy(changed, "one")
        second.send_signal(signal.SIGCONT)
        first.send_signal(signal.SIGTERM)
        assert first.wait(timeout=MAX_WAIT_SECONDS) == 0
        wait_until_busy(changed, "two")
        with processes.worker(changed, name="three"):
            wait_until_ready(changed, "three")
            second.send_signal(signal.SIGTERM)
            second.send_signal(signal.SIGQUIT)
            assert second.wait(timeout=MAX_WAIT_SECONDS) == 0
            answer.write_text("whole\n")
            shown = alice.wait(prompt_id)
    assert (shown["status"], shown["attempt"]) == ("completed", 3)


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
