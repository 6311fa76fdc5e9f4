"""Ends processes when their owner dies, even if the owner is killed with SIGKILL.

The watchdog is a process of its own and learns the ids through a pipe, which the kernel closes when the owner dies.
PR_SET_PDEATHSIG would be shorter, but the kernel drops it when a process changes its user, as PostgreSQL does here.
"""

import atexit
import subprocess
import sys
from functools import cache
from pathlib import Path

from infra.local.processes import end_processes, start_time

_ROOT = Path(__file__).parents[2]


class Watchdog:
    """The watchdog of this process, its owner."""

    def __init__(self) -> None:
        # In a session of its own, so that Ctrl-C does not end it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=_ROOT, stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        atexit.register(self.close)

    def watch(self, pid: int) -> None:
        """End this process, and its children, when the owner dies."""
        if self._process.stdin is not None:
            self._process.stdin.write(f"{pid} {start_time(pid)}\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End all processes that still run."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


@cache
def shared_watchdog() -> Watchdog:
    """The one watchdog that this process needs."""
    return Watchdog()


def main() -> None:
    watched = [line.split() for line in sys.stdin]  # until the pipe is closed
    end_processes({int(pid): float(started) for pid, started in watched if started != "None"})


if __name__ == "__main__":
    main()
