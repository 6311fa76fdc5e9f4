"""The log of `make up`, on stdout."""

import os
import select
import sys
import threading
from collections import deque

#: How many lines wait for a slow reader. Further ones are dropped.
MAX_LINES = 2_000
# What moves the cursor or ends a line elsewhere: a damaged file may contain anything.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != ord("\t")}


def _stdout() -> int:
    """The descriptor of stdout, or of the null device if it was closed from the start (`make up >&-`)."""
    # Not through sys.stdout: the interpreter could not exit while a thread waits there.
    return os.open(os.devnull, os.O_WRONLY) if sys.__stdout__ is None else sys.__stdout__.fileno()


class Output:
    """Prints lines from a thread of its own, so that no process waits for a reader that is slow, paused or gone.

    The memory is bounded: at most MAX_LINES wait, and a line says how many others were dropped.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self._descriptor = _stdout() if descriptor is None else descriptor
        self._has_colours = os.isatty(self._descriptor)
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._is_writing = False
        self._has_failed = False
        self._changed = threading.Condition()
        threading.Thread(target=self._print, name="output", daemon=True).start()

    def write(self, name: str, text: str, colour: str = "") -> None:
        """Print a line of this process. Returns at once."""
        prefix = f"{name:8} | "
        if colour and self._has_colours:
            prefix = f"\033[{colour}m{prefix}\033[0m"
        with self._changed:
            if self._has_failed:
                return
            if len(self._lines) == MAX_LINES:
                self._dropped += 1
                return
            self._lines.append(f"{prefix}{text.translate(_CONTROL)}\n")
            self._changed.notify_all()

    def flush(self, seconds: float) -> None:
        """Wait until everything written so far is printed, or for this many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._is_writing, seconds)

    def is_closed(self) -> bool:
        """Whether nobody can read it any more: the pipe's reader has left, or the terminal is closed."""
        poller = select.poll()
        poller.register(self._descriptor, 0)
        return self._has_failed or bool(poller.poll(0))

    def _print(self) -> None:
        while self._write_all(self._next()):
            pass

    def _next(self) -> bytes:
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lines)
            if self._dropped:
                self._lines.append(f"{'up':8} | {self._dropped} lines were dropped: they are not read fast enough\n")
                self._dropped = 0
            text = "".join(self._lines)
            self._lines.clear()
            self._is_writing = True
        return text.encode(errors="replace")

    def _write_all(self, data: bytes) -> bool:
        """Write the bytes. Returns False if that is impossible."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # a process that shares it made it non-blocking
                select.select([], [self._descriptor], [])
            except OSError:
                with self._changed:
                    self._has_failed = True
                    self._is_writing = False
                    self._lines.clear()
                    self._changed.notify_all()
                return False
        return True
