"""Turns on the event loop.

gevent switches only when something waits. A greenlet that always finds bytes to read never waits, so it would keep the
event loop for as long as its client sends.
"""

import time

#: For how long one connection may keep the event loop while others wait. A switch costs a few µs.
MAX_TURN_SECONDS = 0.002


class Turn:
    """How long the current greenlet has run. Under a server with threads, giving way costs nothing and does nothing."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends = time.monotonic() + MAX_TURN_SECONDS

    def give_way(self) -> None:
        """Let all others run that are ready, if MAX_TURN_SECONDS have passed since the last time."""
        if time.monotonic() >= self._ends:
            time.sleep(0)
            self._ends = time.monotonic() + MAX_TURN_SECONDS
