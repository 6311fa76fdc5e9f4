"""Storage of a login: in memory, or in a file that all processes of a user share."""

import contextlib
import fcntl
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote


@dataclass(frozen=True, slots=True)
class Login:
    """A user's name, an access token for requests, and a single-use refresh token for the next pair of tokens."""

    username: str
    access: str
    refresh: str


class TokenStore(Protocol):
    """Stores one login."""

    def read(self) -> Login | None: ...

    def write(self, login: Login | None) -> None: ...

    def locked(self) -> AbstractContextManager[object]:
        """Lock the login while it is changed, so that no refresh token is used twice."""


class MemoryTokenStore:
    """Stores a login in memory, until the process ends."""

    def __init__(self) -> None:
        self._login: Login | None = None
        self._lock = threading.Lock()

    def read(self) -> Login | None:
        return self._login

    def write(self, login: Login | None) -> None:
        self._login = login

    def locked(self) -> AbstractContextManager[object]:
        return self._lock


class FileTokenStore:
    """Stores a login in a file that only its owner can read. Writes are atomic."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def for_server(cls, url: str) -> "FileTokenStore":
        """The file for this server in the user's state folder (XDG Base Directory)."""
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return cls(Path(state).expanduser() / "promptwire" / f"{quote(url, safe='')}.json")

    def read(self) -> Login | None:
        try:
            return Login(**json.loads(self.path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):  # no file, or not one that we wrote
            return None

    def write(self, login: Login | None) -> None:
        if login is None:
            self.path.unlink(missing_ok=True)
            return
        self._make_folder()
        descriptor, name = tempfile.mkstemp(dir=self.path.parent)  # readable only by its owner
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump(asdict(login), file)
                file.flush()
                os.fsync(descriptor)
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the login across processes. The kernel releases the lock if its holder dies."""
        self._make_folder()
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_folder(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
