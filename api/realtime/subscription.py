"""Who receives a user's announcements from the relay."""

from queue import Empty, SimpleQueue
from typing import Protocol

from shared.messaging.announcements import Announcement

#: How many announcements may wait for a subscriber before it is dropped.
MAX_QUEUED_ANNOUNCEMENTS = 256
#: A socket is closed if a message comes while more characters than this wait for it.
MAX_QUEUED_CHARACTERS = 4 * 1024 * 1024


class Subscriber(Protocol):
    """Receives a user's announcements from the relay's threads. Its methods must not block."""

    def put(self, announcement: Announcement) -> None: ...

    def go_down(self) -> None:
        """No announcement will follow: the process is stopping."""


class Subscription:
    """A bounded queue of one user's announcements."""

    def __init__(self, limit: int) -> None:
        self._queue: SimpleQueue[Announcement | None] = SimpleQueue()
        self._limit = limit
        self.overflowed = False
        self.going_down = False
        self.closed = False

    def get(self, timeout: float | None = None) -> Announcement | None:
        """The next announcement; None after `timeout` seconds without one, or once closed."""
        if self.closed:
            return None
        try:
            return self._queue.get(timeout=timeout if timeout is None else max(0.0, timeout))
        except Empty:
            return None

    def put(self, announcement: Announcement) -> None:
        if self._queue.qsize() >= self._limit:
            self.overflowed = True
            self.close()
        else:
            self._queue.put(announcement)

    def go_down(self) -> None:
        self.going_down = True
        self.close()

    def close(self) -> None:
        """Wake up the thread that waits in `get`, which returns None."""
        self.closed = True
        self._queue.put(None)
