"""Commands of the client as forks of a process that has imported it (`fork_server.py`).

The import is most of a command's computing. A fork is a process like any other, with arguments, an environment, files,
signals and an exit code of its own.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping

from tests.support import watchdog
from tests.support.servers import MAX_WAIT_SECONDS, ROOT


class Fork:
    """A command in a fork, with these files as its stdin, stdout and stderr. Used as `subprocess.Popen` is."""

    def __init__(self, command: list[str], environment: Mapping[str, str], files: list[int]) -> None:
        self.args = command
        self.returncode: int | None = None
        self._news, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            message = json.dumps([command, dict(environment)]).encode()
            socket.send_fds(_server(), [message], [*files, theirs.fileno()])
        self._news.settimeout(MAX_WAIT_SECONDS)
        self.pid = int(self._news.recv(100))

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        if self.returncode is None:
            if not select.select([self._news], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._news.recv(100))
            self._news.close()
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the command if it is still running, and wait until it has ended."""
        if self.poll() is None:
            self.send_signal(signal.SIGKILL)
            self.wait(MAX_WAIT_SECONDS)


@functools.cache
def _server() -> socket.socket:
    """Start the process that forks. It ends when this socket is closed, as it is however pytest ends."""
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    watchdog.watch(process.pid)

    def end() -> None:
        ours.close()
        process.wait(MAX_WAIT_SECONDS)

    atexit.register(end)
    return ours
