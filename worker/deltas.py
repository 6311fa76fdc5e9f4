"""Telling a prompt's sockets its text while it is generated."""

import time

from shared import events
from shared.attempts import Claim
from shared.events import Announcer

#: At most about twenty deltas a second and prompt.
INTERVAL_SECONDS = 0.05
#: An answer that is whole sooner than this is told whole, without deltas.
PATIENCE_SECONDS = 0.01


class Deltas:
    """Announces chunks as `prompt.delta`: after PATIENCE_SECONDS, then what has gathered every INTERVAL_SECONDS."""

    def __init__(self, announcer: Announcer, held: Claim) -> None:
        self._announcer = announcer
        self._held = held
        self._index = 0
        self._gathered: list[str] = []
        self._next_flush = time.monotonic() + PATIENCE_SECONDS

    def add(self, chunk: str) -> None:
        if not self._held.websocket:  # nobody is to be told
            return
        self._gathered.append(chunk)
        if time.monotonic() >= self._next_flush:
            self._flush()

    def finish(self) -> None:
        """Announces the rest, unless nothing was announced: the event of the ending has the whole text."""
        if self._index:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._gathered)
        if not text:
            return
        self._announcer.announce((self._held.user_id, events.of_delta(self._held, self._index, text)))
        self._index += 1
        self._gathered.clear()
        self._next_flush = time.monotonic() + INTERVAL_SECONDS
