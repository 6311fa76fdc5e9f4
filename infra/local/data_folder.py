"""The data folder of a local stack: its lock, secrets, ports, and the processes that a killed stack left running."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local import preflight
from infra.local.errors import CannotStartError
from infra.local.processes import end_processes, start_time

# Below the range from which the kernel picks ports for outgoing connections.
_SERVER_PORTS = range(21_000, 32_000)


class DataFolder:
    """A stack's folder. Only its owner can read it; it contains users' texts and secrets.

    A full disk leaves empty files behind, so an empty file is treated as a missing one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "lock").touch(mode=0o600)
        except OSError as error:
            raise CannotStartError(
                f"DATA_DIR={path} cannot be written ({error.strerror}): set DATA_DIR to a folder that you own."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder for this stack, and close it to other users.

        The kernel releases the lock if this process dies.
        """
        with preflight.locked(self.path):
            self._close_to_others()
            yield

    def _close_to_others(self) -> None:
        """Remove the permissions of other users that earlier releases left. PostgreSQL checks those of its folder."""
        for folder, subfolders, files in os.walk(self.path):
            subfolders[:] = [name for name in subfolders if name != "postgres"]
            for path in (Path(folder), *(Path(folder, name) for name in files)):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & ~0o077)

    def has_secret(self, name: str) -> bool:
        return bool(_read(self.path / "secrets" / name))

    def has_lost_secret(self, name: str) -> bool:
        """Whether there was a secret, of which only an empty file is left."""
        return (self.path / "secrets" / name).exists() and not self.has_secret(name)

    def secret(self, name: str) -> str:
        """A random secret, created on first use and kept."""
        file = self.path / "secrets" / name
        if not self.has_secret(name):
            file.parent.mkdir(mode=0o700, exist_ok=True)
            write_private(file, secrets.token_urlsafe(32))
        return _read(file)

    def write_login(self, name: str, username: str, password: str) -> None:
        """Write a file with what a client sends to log in."""
        login = json.dumps({"username": username, "password": password})
        write_private(self.path / f"{name}.json", f"{login}\n")

    def port(self, name: str) -> int:
        """A free port: the one used last time if it is still free."""
        file = self.path / "ports" / name
        file.parent.mkdir(mode=0o700, exist_ok=True)
        last = _read(file)
        if last.isdecimal() and is_free("127.0.0.1", int(last)):
            return int(last)
        while not is_free("127.0.0.1", port := secrets.choice(_SERVER_PORTS)):
            pass
        write_private(file, str(port))
        return port

    def note_processes(self, pids: list[int]) -> None:
        """Record the running processes with their start times, because the kernel reuses ids."""
        write_private(self.path / "processes.json", json.dumps({pid: start_time(pid) for pid in pids}))

    def end_leftovers(self) -> None:
        """End the processes that a killed stack left running on this folder."""
        try:
            noted = json.loads(_read(self.path / "processes.json") or "{}")
            start_times = {int(pid): started for pid, started in noted.items()}
        except (ValueError, AttributeError):  # not what was written
            return
        end_processes(start_times)


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read. It has the old content or the new one, even after a power failure."""
    temporary = file.with_name(f"{file.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    with temporary.open("w") as output:
        output.write(text)
        output.flush()
        os.fsync(output.fileno())
    temporary.replace(file)


def _read(file: Path) -> str:
    """The text of a file; empty if there is none."""
    return file.read_text().strip() if file.exists() else ""


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen on this address."""
    return preflight.listen_error(host, port) is None
