"""Where a login is kept: in memory, or in a file that the user's processes share."""

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
    """Who is logged in, an access token for calls, and a refresh token, good once, for the next pair."""

    username: str
    access: str
    refresh: str


class TokenStore(Protocol):
    """Keeps one login."""

    def read(self) -> Login | None: ...

    def write(self, login: Login | None) -> None: ...

    def locked(self) -> AbstractContextManager[object]:
        """Held by whoever changes the login, so that a refresh token is not spent twice."""


class MemoryTokenStore:
    """Keeps a login as long as the process lives."""

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
    """Keeps a login in a file that only its owner can read; it is there whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def of(cls, url: str) -> "FileTokenStore":
        """The file for a server, where the user's programs keep their state."""
        state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return cls(Path(state).expanduser() / "promptwire" / f"{quote(url, safe='')}.json")

    def read(self) -> Login | None:
        try:
            return Login(**json.loads(self.path.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):  # none, or none of ours
            return None

    def write(self, login: Login | None) -> None:
        if login is None:
            self.path.unlink(missing_ok=True)
            return
        self._make_folder()
        descriptor, name = tempfile.mkstemp(dir=self.path.parent)  # readable by its owner only
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
        """The kernel lets go of the lock if its holder dies."""
        self._make_folder()
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _make_folder(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
