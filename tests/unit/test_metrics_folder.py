"""The folder of a server's metrics."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import MAX_WAIT_SECONDS

# A server with a child, which outlives a server that is killed. Both end when they may read no more.
_SERVER = """
import os, sys
from shared.telemetry import metrics_folder

metrics_folder.make()
child = os.fork()
if child:
    print(os.environ["PROMETHEUS_MULTIPROC_DIR"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    started = []

    def start() -> tuple[subprocess.Popen[str], Path]:
        command = [sys.executable, "-c", _SERVER]
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(server)
        return server, Path(server.stdout.readline().strip())

    yield start
    for server in started:
        end(server)


def kill(server: subprocess.Popen[str]) -> None:
    server.kill()
    server.wait(MAX_WAIT_SECONDS)


def end(server: subprocess.Popen[str]) -> None:
    """Wait until the server has ended, and its child."""
    if not server.stdin.closed:
        server.stdin.close()
        server.stdout.read()
        server.stdout.close()
        server.wait(MAX_WAIT_SECONDS)


def test_a_server_that_ends_removes_its_folder(start) -> None:
    server, folder = start()
    assert folder.is_dir()
    end(server)
    assert not folder.exists()


def test_the_next_server_removes_the_folder_of_a_killed_one(start) -> None:
    server, folder = start()
    kill(server)
    end(server)
    assert folder.is_dir()
    _, other = start()
    assert not folder.exists()
    assert other.is_dir()


def test_a_folder_in_use_stays(start) -> None:
    _, used = start()
    killed, used_by_child = start()
    kill(killed)
    start()
    assert used.is_dir()
    assert used_by_child.is_dir()
