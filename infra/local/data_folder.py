"""The data folder of a local stack: its lock, its secrets, its ports, and what a killed stack left running."""

import fcntl
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from infra.local.errors import CannotStartError
from infra.local.supervisor import birth

# Below the range from which the kernel takes ports for outgoing connections.
_PORTS = range(21_000, 32_000)


class DataFolder:
    """A stack's folder. Files with secrets are readable by their owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "lock").touch(mode=0o600)
        except OSError as error:
            raise CannotStartError(
                f"DATA_DIR={path} cannot be written ({error.strerror}): set DATA_DIR to a folder of yours."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder for this stack alone; the kernel lets go if we die."""
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CannotStartError(
                    f"Another stack runs on {self.path}: stop it, or set DATA_DIR, PORT and FLOWER_PORT to others."
                ) from error
            yield

    def secret(self, name: str) -> str:
        """A random secret that is made once and kept."""
        file = self.path / "secrets" / name
        if not file.exists():
            file.parent.mkdir(mode=0o700, exist_ok=True)
            self.write_private(file, secrets.token_urlsafe(32))
        return file.read_text()

    def port(self, name: str) -> int:
        """A free port, the same as last time if that is still free."""
        file = self.path / "ports" / name
        file.parent.mkdir(exist_ok=True)
        if file.exists() and is_free("127.0.0.1", int(file.read_text())):
            return int(file.read_text())
        while not is_free("127.0.0.1", port := secrets.choice(_PORTS)):
            pass
        file.write_text(str(port))
        return port

    def write_private(self, file: Path, text: str) -> None:
        """Writes a file that only its owner can read; it is there whole or not at all."""
        temporary = file.with_name(f"{file.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text(text)
        temporary.replace(file)

    def note_processes(self, pids: list[int]) -> None:
        """Remembers what runs, each with its birth, because ids are used again."""
        self.write_private(self.path / "processes.json", json.dumps({pid: birth(pid) for pid in pids}))

    def end_leftovers(self) -> None:
        """Ends what a stack that was killed left running on this folder."""
        file = self.path / "processes.json"
        if not file.exists():
            return
        left = [int(pid) for pid, born in json.loads(file.read_text()).items() if born and birth(int(pid)) == born]
        for pid in left:
            # SIGINT is how PostgreSQL stops without waiting for its clients.
            os.kill(pid, signal.SIGINT if "postgres" in psutil.Process(pid).name() else signal.SIGTERM)
        deadline = time.monotonic() + 5
        while any(psutil.pid_exists(pid) for pid in left) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in filter(psutil.pid_exists, left):
            os.killpg(pid, signal.SIGKILL)


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
