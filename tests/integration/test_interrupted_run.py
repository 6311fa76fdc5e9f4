"""A test run that is interrupted or killed leaves no processes and no data behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from tests.support.servers import MAX_WAIT_SECONDS, ROOT, wait_until

_TESTS = """
import time

import pytest

from tests.support import processes
from tests.support.servers import running_servers

# Python, which runs Python, which sleeps.
SLEEP = "import pathlib, time; pathlib.Path({started!r}).touch(); time.sleep(3600)"
COMMAND = ["timeit", "-n1", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {{SLEEP!r}}])"]


@pytest.fixture(scope="session")
def servers():
    with running_servers() as running:
        yield running


def test_that_does_not_end(servers):
    processes.start(COMMAND, servers.settings("unused"))
    time.sleep(3600)
"""


def start_run(folder: Path) -> subprocess.Popen:
    """Start a test run. The file `started` appears in its folder once its processes run."""
    (folder / "integration").mkdir(parents=True)
    (folder / "integration" / "test_it.py").write_text(_TESTS.format(started=str(folder / "started")))
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider"]
    return subprocess.Popen(
        [*command, "--numprocesses=1", str(folder / "integration")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def test_an_interrupted_or_killed_run_leaves_nothing_behind(tmp_path: Path) -> None:
    folders = {signal.SIGINT: tmp_path / "interrupted", signal.SIGKILL: tmp_path / "killed"}
    runs = {number: start_run(folder) for number, folder in folders.items()}
    try:
        for number, run in runs.items():
            started = folders[number] / "started"
            wait_until(lambda: started.exists() or run.poll() is not None, what="the run starting its processes")  # noqa: B023
            end_and_check(run, number)
    finally:
        for run in runs.values():
            run.kill()
            run.wait(MAX_WAIT_SECONDS)


def end_and_check(run: subprocess.Popen, number: signal.Signals) -> None:
    family = psutil.Process(run.pid).children(recursive=True)
    names = " ".join(process.name() for process in family)
    assert "postgres" in names
    assert "valkey" in names
    run.send_signal(number)
    run.wait(timeout=MAX_WAIT_SECONDS)
    _, alive = psutil.wait_procs(family, timeout=MAX_WAIT_SECONDS)
    assert alive == []
    for process in (run, *family):
        assert not (ROOT / ".local" / f"test-{process.pid}").exists()
