"""When API keys were last used, written off the requests' path and at most once a minute."""

import threading
import time

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from shared.accounts import api_keys
from shared.db.engine import cause

log = structlog.get_logger(__name__)

WRITE_SECONDS = 60.0


class KeyUses:
    """Collects the keys that this process has authenticated.

    The first use is written at once, by a thread that then writes all others every WRITE_SECONDS, and ends when there
    are none. Uses are lost if the process stops or Postgres is unavailable: the next one is written.
    """

    def __init__(self, engine: Engine, *, write_seconds: float = WRITE_SECONDS) -> None:
        self._engine = engine
        self._write_seconds = write_seconds
        self._used: set[int] = set()
        self._is_writing = False
        self._lock = threading.Lock()

    def note(self, key_id: int) -> None:
        """Note that the key was used now."""
        if key_id in self._used:
            return
        with self._lock:
            self._used.add(key_id)
            if self._is_writing:
                return
            self._is_writing = True
        threading.Thread(target=self._write_all, name="key-uses", daemon=True).start()

    def _write_all(self) -> None:
        while used := self._take():
            try:
                with self._engine.connect() as connection:
                    api_keys.touch(connection, used)
            except SQLAlchemyError as error:
                log.warning("uses of api keys not written", error=cause(error))
            time.sleep(self._write_seconds)

    def _take(self) -> set[int]:
        with self._lock:
            used, self._used = self._used, set()
            self._is_writing = bool(used)
            return used
