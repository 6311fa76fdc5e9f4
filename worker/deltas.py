"""Publishing a prompt's text while it is generated."""

import threading
import time
from typing import Self

from shared.messaging import announcements
from shared.messaging.partial_text import PartialText
from shared.prompts.claims import Claim

#: The shortest time between two deltas of a prompt: at most about twenty a second.
INTERVAL_SECONDS = 0.05
#: An answer that is complete sooner than this has no deltas.
FIRST_DELTA_SECONDS = 0.01


class Deltas:
    """Stores and announces the chunks of one attempt.

    The first after FIRST_DELTA_SECONDS, then every INTERVAL_SECONDS those that have gathered, also if no other chunk
    comes. If Redis is unavailable, sockets miss some of the text, as the next index shows; the stored text is complete
    after the next write.
    """

    def __init__(self, partial_text: PartialText, claim: Claim) -> None:
        self._partial_text = partial_text
        self._claim = claim
        self._lock = threading.Lock()
        self._gathered: list[str] = []
        self._unwritten = ""
        self._offset = 0
        self._index = 0
        self._next_flush = time.monotonic() + FIRST_DELTA_SECONDS
        self._timer: threading.Timer | None = None

    def add(self, chunk: str) -> None:
        """Add a chunk of the answer."""
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
        """Announce the rest of a complete answer, unless nothing was announced: the finished event has all of it."""
        with self._lock:
            self._stop_timer()
            if self._index:
                if error is None:
                    self._flush()
                self._partial_text.end(self._claim.id, self._claim.attempt)

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
        delta = announcements.from_delta(self._claim, self._index, text)
        if self._partial_text.write(self._claim.user_id, self._offset, self._unwritten, delta):
            self._offset += len(self._unwritten.encode())
            self._unwritten = ""
        self._index += 1
        self._next_flush = time.monotonic() + INTERVAL_SECONDS

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
