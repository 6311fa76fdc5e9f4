"""The client's command line as processes, with a home folder for each user.

They are forks, which start in a tenth of the time. `command` is for processes that begin with the interpreter.
"""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from api.client import FileTokenStore, Login
from tests.support.forks import Fork
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS

#: Options that retry without a limit.
RETRY_FOREVER = ("--retries", "1000", "--timeout", "3600")


class CommandLine:
    """Runs commands with the state folder of one user."""

    def __init__(self, url: str, home: Path) -> None:
        self.url, self.home = url, home
        self.login_file = FileTokenStore(home / "promptwire" / FileTokenStore.for_server(url).path.name)
        self.environment = os.environ | {"PROMPTWIRE_URL": url, "XDG_STATE_HOME": str(home)}

    def log_in_as(self, user: RemoteUser, **changes: str) -> None:
        """Store the user's login, with these changes."""
        login = {"username": user.username} | user.tokens | changes
        self.login_file.write(Login(**login))

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        with TemporaryFile("w+") as given, TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
            given.write(stdin)
            given.seek(0)
            files = [file.fileno() for file in (given, stdout, stderr)]
            fork = Fork([*arguments], self.environment | environment, files)
            try:
                fork.wait(MAX_WAIT_SECONDS)
            finally:
                fork.kill()
            for written in (stdout, stderr):
                written.seek(0)
            return subprocess.CompletedProcess(fork.args, fork.returncode, stdout.read(), stderr.read())

    def json(self, *arguments: str, stdin: str = "", code: int = 0) -> list[dict[str, Any]]:
        """Run a command with --json and return the objects that it prints."""
        result = self.run(*arguments, "--json", stdin=stdin)
        assert result.returncode == code, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    @contextmanager
    def start(self, *arguments: str) -> Iterator["RunningCommand"]:
        """Start a command, and kill it at the end if it is still running."""
        running = RunningCommand([*arguments], self.environment)
        try:
            yield running
        finally:
            running.kill()


class RunningCommand:
    """A running command and the lines that it has printed so far: on stdout, and on stderr (`notes`)."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.notes: list[str] = []
        (stdout, its_stdout), (stderr, its_stderr) = os.pipe(), os.pipe()
        with TemporaryFile() as stdin:
            self.process = Fork(arguments, environment, [stdin.fileno(), its_stdout, its_stderr])
        os.close(its_stdout)
        os.close(its_stderr)
        self._readers = [
            threading.Thread(target=_read, args=each) for each in ((stdout, self.lines), (stderr, self.notes))
        ]
        for thread in self._readers:
            thread.start()

    def wait(self) -> int:
        """Wait until the command has ended and all its output is read. Returns the exit code."""
        exit_code = self.process.wait(timeout=MAX_WAIT_SECONDS)
        for thread in self._readers:
            thread.join(MAX_WAIT_SECONDS)
        return exit_code

    def kill(self) -> None:
        self.process.kill()
        self.wait()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "api.client", *arguments]


def _read(end: int, into: list[str]) -> None:
    with os.fdopen(end) as file:
        into.extend(iter(file.readline, ""))
