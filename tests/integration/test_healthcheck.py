"""The health check of a worker's container."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.settings import Settings
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, Servers, environment_of
from worker.healthcheck import STALE_SECONDS


def healthy(settings: Settings) -> bool:
    environment = os.environ | environment_of(settings)
    return (
        subprocess.run(
            [sys.executable, "-m", "worker.healthcheck"],
            env=environment,
            cwd=ROOT,
            check=False,
            timeout=MAX_WAIT_SECONDS,
        ).returncode
        == 0
    )


@pytest.fixture
def heartbeat_file(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


@pytest.fixture
def settings_with_heartbeat(servers: Servers, settings: Settings, heartbeat_file: Path) -> Settings:
    return servers.changed(settings, heartbeat_file=str(heartbeat_file))


def make_stale(heartbeat_file: Path) -> None:
    heartbeat_file.touch()
    long_ago = time.time() - STALE_SECONDS - 1
    os.utime(heartbeat_file, (long_ago, long_ago))


def test_a_worker_with_a_recent_heartbeat_is_healthy(settings_with_heartbeat: Settings, heartbeat_file: Path) -> None:
    heartbeat_file.touch()
    assert healthy(settings_with_heartbeat)


def test_a_worker_that_has_not_started_is_unhealthy(settings_with_heartbeat: Settings) -> None:
    assert not healthy(settings_with_heartbeat)


def test_a_worker_with_a_stale_heartbeat_is_unhealthy(settings_with_heartbeat: Settings, heartbeat_file: Path) -> None:
    make_stale(heartbeat_file)
    assert not healthy(settings_with_heartbeat)


def test_a_worker_with_a_stale_heartbeat_is_healthy_while_the_broker_is_unavailable(
    servers: Servers, settings_with_heartbeat: Settings, heartbeat_file: Path
) -> None:
    make_stale(heartbeat_file)
    assert healthy(servers.changed(settings_with_heartbeat, redis_url="redis://127.0.0.1:9/0"))


def test_a_worker_with_a_stale_heartbeat_is_healthy_while_the_broker_is_a_replica(
    servers: Servers, settings_with_heartbeat: Settings, heartbeat_file: Path
) -> None:
    make_stale(heartbeat_file)
    with servers.redis_refusing("replica"):
        assert healthy(settings_with_heartbeat)


def test_a_worker_without_a_heartbeat_file_is_unhealthy(settings: Settings) -> None:
    assert not healthy(settings)
