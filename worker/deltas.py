"""Telling a prompt's text while it is generated."""

import threading
import time
from typing import Self

from shared.messaging import announcements
from shared.messaging.partial_text import PartialText
from shared.prompts.claims import Claim

#: At most about twenty deltas a second and prompt.
INTERVAL_SECONDS = 0.05
#: An answer that is whole sooner than this is told whole, without deltas.
PATIENCE_SECONDS = 0.01


class Deltas:
    """Writes down and announces the chunks of one attempt: after PATIENCE_SECONDS, then what has gathered every
    INTERVAL_SECONDS, also if no other chunk comes.

    If Redis is away, sockets miss some of it, as the next index tells; what is written down is made good for.
    """

    def __init__(self, running: PartialText, claim: Claim) -> None:
        self._running = running
        self._claims = claim
        self._lock = threading.Lock()
        self._gathered: list[str] = []
        self._unwritten = ""
        self._offset = 0
        self._index = 0
        self._next_flush = time.monotonic() + PATIENCE_SECONDS
        self._timer: threading.Timer | None = None

    def add(self, chunk: str) -> None:
        """Takes up a chunk."""
        with self._lock:
            self._gathered.append(chunk)
            wait = self._next_flush - time.monotonic()
            if wait <= 0:
                self._flush()
            elif self._timer is None:
                self._timer = threading.Timer(wait, self._flush_late)
                self._timer.daemon = True
                self._timer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        """Announces the rest of a whole answer, unless nothing was announced: its ending will tell all of it."""
        with self._lock:
            self._stop_timer()
            if self._index:
                if error is None:
                    self._flush()
                self._running.end(self._claims.id, self._claims.attempt)

    def _flush_late(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._flush()

    def _flush(self) -> None:
        self._stop_timer()
        text = "".join(self._gathered)
        if not text:
            return
        self._gathered.clear()
        self._unwritten += text
        delta = announcements.from_delta(self._claims, self._index, text)
        if self._running.write(self._claims.user_id, self._offset, self._unwritten, delta):
            self._offset += len(self._unwritten.encode())
            self._unwritten = ""
        self._index += 1
        self._next_flush = time.monotonic() + INTERVAL_SECONDS

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
