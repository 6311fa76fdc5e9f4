"""A test run that is interrupted or killed leaves no processes and no data behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.servers import MAX_WAIT_SECONDS, ROOT, wait_until

_TESTS = """
import time

from tests.support import processes

# Python, which runs Python, which sleeps.
SLEEP = "import pathlib, time; pathlib.Path({started!r}).touch(); time.sleep(3600)"
COMMAND = ["timeit", "-n1", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {{SLEEP!r}}])"]


def test_that_does_not_end(servers):
    processes.start(COMMAND, servers.settings("unused"))
    time.sleep(3600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    folder, started = tmp_path / "integration", tmp_path / "started"
    folder.mkdir()
    (folder / "test_it.py").write_text(_TESTS.format(started=str(started)))
    command = [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    run = subprocess.Popen(
        [*command, "--numprocesses=1", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: started.exists() or run.poll() is not None, what="the run starting its processes")
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
    finally:
        run.kill()
        run.wait()
