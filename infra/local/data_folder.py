"""The data folder of a local stack: its lock, secrets, ports, and the processes that a killed stack left running."""

import fcntl
import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.errors import CannotStartError
from infra.local.processes import end_processes, start_time

# Below the range from which the kernel picks ports for outgoing connections.
_SERVER_PORTS = range(21_000, 32_000)


class FolderInUseError(CannotStartError):
    """Another stack runs on the folder."""


class DataFolder:
    """A stack's folder. Only the owner can read files with secrets."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "lock").touch(mode=0o600)
        except OSError as error:
            raise CannotStartError(
                f"DATA_DIR={path} cannot be written ({error.strerror}): set DATA_DIR to a folder that you own."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this stack; the kernel releases the lock if this process dies."""
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise FolderInUseError(
                    f"Another stack runs on {self.path}: stop it, or set DATA_DIR, PORT and FLOWER_PORT to others."
                ) from error
            yield

    def secret(self, name: str) -> str:
        """A random secret, created on first use and kept."""
        file = self.path / "secrets" / name
        if not file.exists():
            file.parent.mkdir(mode=0o700, exist_ok=True)
            self.write_private(file, secrets.token_urlsafe(32))
        return file.read_text()

    def port(self, name: str) -> int:
        """A free port: the one used last time if it is still free."""
        file = self.path / "ports" / name
        file.parent.mkdir(exist_ok=True)
        if file.exists() and is_free("127.0.0.1", int(file.read_text())):
            return int(file.read_text())
        while not is_free("127.0.0.1", port := secrets.choice(_SERVER_PORTS)):
            pass
        file.write_text(str(port))
        return port

    def write_private(self, file: Path, text: str) -> None:
        """Write a file that only its owner can read. The write is atomic."""
        temporary = file.with_name(f"{file.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text(text)
        temporary.replace(file)

    def note_processes(self, pids: list[int]) -> None:
        """Record the running processes with their start times, because the kernel reuses ids."""
        self.write_private(self.path / "processes.json", json.dumps({pid: start_time(pid) for pid in pids}))

    def end_leftovers(self) -> None:
        """End the processes that a killed stack left running on this folder."""
        file = self.path / "processes.json"
        if file.exists():
            end_processes({int(pid): started for pid, started in json.loads(file.read_text()).items()})


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on this address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
