"""How much a client may send over a WebSocket."""

#: A client may send this many frames a second, and this many at once. A frame also counts as one more for each KiB.
FRAMES_PER_SECOND = 100
MAX_BURST_FRAMES = 500
#: For how long a client may send more than that. Until then it is read as slowly as it should send.
MAX_EXCESS_SECONDS = 30.0
_FRAME_BYTES = 1024


class Pace:
    """The pace of one client, by a generic cell rate algorithm: one number, the time when all of it would be paid off.

    A client that sends too much is read slowly, so that its own kernel stops it: no message of an honest client that
    sends a burst is lost. One that keeps on must be disconnected: its backlog would outlive it by minutes.
    """

    __slots__ = ("_excess_since", "_paid_off")

    def __init__(self) -> None:
        self._paid_off = 0.0
        self._excess_since: float | None = None

    def charge(self, size: int, now: float) -> float:
        """Count a frame of `size` bytes, read at `now` in seconds. Returns how many seconds to wait before the next."""
        earliest = now - MAX_BURST_FRAMES / FRAMES_PER_SECOND
        self._paid_off = max(self._paid_off, earliest) + (1 + size / _FRAME_BYTES) / FRAMES_PER_SECOND
        if self._paid_off <= now:
            self._excess_since = None
            return 0.0
        if self._excess_since is None:
            self._excess_since = now
        return self._paid_off - now

    def is_exhausted(self, now: float) -> bool:
        """Whether the client has sent too much for MAX_EXCESS_SECONDS."""
        return self._excess_since is not None and now >= self._excess_since + MAX_EXCESS_SECONDS
