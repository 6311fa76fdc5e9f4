"""The rate limit of the frames that a client sends over a WebSocket."""

#: A client may send this many frames a second, and this many at once. A frame also counts as one more for each KiB.
FRAMES_PER_SECOND = 100
MAX_BURST_FRAMES = 500
#: For how long a client may send more than that. Until then it is read as slowly as it should send.
MAX_EXCESS_SECONDS = 30.0
_FRAME_BYTES = 1024


class FrameRateLimit:
    """Limits the frames of one client, by the generic cell rate algorithm (GCRA).

    A client that sends too much is read slowly, so that its own kernel stops it. A client that sends a burst loses
    nothing by that. One that keeps on must be disconnected, because reading its backlog would take minutes.
    """

    __slots__ = ("_arrival_time", "_excess_since")

    def __init__(self) -> None:
        self._arrival_time = 0.0  #: when the next frame may arrive (GCRA's "theoretical arrival time")
        self._excess_since: float | None = None

    def charge(self, size: int, now: float) -> float:
        """Count a frame of `size` bytes, read at `now` in seconds. Returns how many seconds to wait before the next."""
        earliest = now - MAX_BURST_FRAMES / FRAMES_PER_SECOND
        self._arrival_time = max(self._arrival_time, earliest) + (1 + size / _FRAME_BYTES) / FRAMES_PER_SECOND
        if self._arrival_time <= now:
            self._excess_since = None
            return 0.0
        if self._excess_since is None:
            self._excess_since = now
        return self._arrival_time - now

    def is_exhausted(self, now: float) -> bool:
        """Whether the client has sent too much for MAX_EXCESS_SECONDS."""
        return self._excess_since is not None and now >= self._excess_since + MAX_EXCESS_SECONDS
