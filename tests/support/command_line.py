"""The client's commands as processes, each user with a home of their own."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.client import FileTokenStore, Login
from tests.support.processes import RemoteUser
from tests.support.servers import ROOT

#: Go on however long it takes.
STUBBORN = ("--retries", "1000", "--timeout", "3600")


class CommandLine:
    """A user's terminal, without the terminal."""

    def __init__(self, url: str, home: Path) -> None:
        self.url, self.home = url, home
        self.login_file = FileTokenStore(home / "promptwire" / FileTokenStore.of(url).path.name)
        self.environment = os.environ | {"PROMPTWIRE_URL": url, "XDG_STATE_HOME": str(home)}

    def be(self, user: RemoteUser, **changes: str) -> None:
        """Is logged in as this user, but for these changes of the login."""
        login = {"username": user.username} | user.tokens | changes
        self.login_file.write(Login(**login))

    def run(self, *arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(*arguments),
            input=stdin,
            env=self.environment | environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def json(self, *arguments: str, stdin: str = "", code: int = 0) -> list[dict[str, Any]]:
        """The lines that a command shows with --json."""
        ended = self.run(*arguments, "--json", stdin=stdin)
        assert ended.returncode == code, ended.stderr
        return [json.loads(line) for line in ended.stdout.splitlines()]

    @contextmanager
    def running(self, *arguments: str) -> Iterator["Running"]:
        """A command that is killed at the end if it still runs."""
        running = Running(command(*arguments), self.environment)
        try:
            yield running
        finally:
            running.end()


class Running:
    """A command that goes on, and what it has said so far."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=environment, cwd=ROOT, text=True, **pipes)
        self.lines: list[str] = []
        self.notes: list[str] = []
        self._autocommit_engine = [
            threading.Thread(target=_read, args=arguments)
            for arguments in ((self.process.stdout, self.lines), (self.process.stderr, self.notes))
        ]
        for thread in self._autocommit_engine:
            thread.start()

    def wait(self) -> int:
        """Its exit code, when it has ended and everything it said is read."""
        code = self.process.wait(timeout=120)
        for thread in self._autocommit_engine:
            thread.join()
        return code

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "api.client", *arguments]


def _read(file: Any, into: list[str]) -> None:
    with file:
        into.extend(iter(file.readline, ""))
