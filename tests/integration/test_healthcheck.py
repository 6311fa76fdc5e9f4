"""What a worker's container says of its health."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.settings import Settings
from tests.support.servers import ROOT, Servers, environment_of
from worker.healthcheck import STALE_SECONDS


def healthy(settings: Settings) -> bool:
    environment = os.environ | environment_of(settings)
    return (
        subprocess.run([sys.executable, "-m", "worker.healthcheck"], env=environment, cwd=ROOT, check=False).returncode
        == 0
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "heartbeat"


@pytest.fixture
def watched(servers: Servers, settings: Settings, file: Path) -> Settings:
    return servers.changed(settings, heartbeat_file=str(file))


def stop_beating(file: Path) -> None:
    file.touch()
    long_ago = time.time() - STALE_SECONDS - 1
    os.utime(file, (long_ago, long_ago))


def test_a_worker_that_takes_work_is_healthy(watched: Settings, file: Path) -> None:
    file.touch()
    assert healthy(watched)


def test_one_that_has_not_begun_is_not(watched: Settings) -> None:
    assert not healthy(watched)


def test_one_that_stands_still_is_not(watched: Settings, file: Path) -> None:
    stop_beating(file)
    assert not healthy(watched)


def test_one_without_a_broker_is_not_to_blame(servers: Servers, watched: Settings, file: Path) -> None:
    stop_beating(file)
    assert healthy(servers.changed(watched, redis_url="redis://127.0.0.1:9/0"))


def test_one_that_gives_no_sign_is_not(settings: Settings) -> None:
    assert not healthy(settings)
