"""The watchdog: when a process dies, the processes that it started end too."""

import signal
import subprocess
import sys

import psutil
import pytest

from tests.support.servers import MAX_WAIT_SECONDS, ROOT, wait_until

# A process and a child of it; neither stops on SIGTERM.
CHILD = "trap '' TERM; sleep 60 & echo $!; wait"
OWNER = f"""
import subprocess, sys, time
sys.path.insert(0, ".")
from tests.support import watchdog
child = subprocess.Popen(["sh", "-c", {CHILD!r}], stdout=subprocess.PIPE, text=True, start_new_session=True)
watchdog.watch(child.pid)
print(child.pid, child.stdout.readline(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_watched_processes_end_when_their_owner_dies(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(pids) == 2
        owner.send_signal(number)
        owner.wait(MAX_WAIT_SECONDS)
    wait_until(lambda: not any(_runs(pid) for pid in pids), what="the end of the watched processes")


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
