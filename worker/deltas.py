"""Publishing the texts of answers while they are generated."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import structlog

from shared.messaging import announcements
from shared.messaging.partial_text import PartialText, Write
from shared.prompts.claims import Claim

log = structlog.get_logger(__name__)

#: The shortest time between two deltas of a prompt: at most about twenty a second.
INTERVAL_SECONDS = 0.05
#: An answer that is complete sooner than this has no deltas.
FIRST_DELTA_SECONDS = 0.01


class Deltas:
    """The chunks of one attempt. `DeltaPublisher` stores and announces them."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.next_write = time.monotonic() + FIRST_DELTA_SECONDS
        self.is_scheduled = False
        self.is_being_written = False
        self._gathered: list[str] = []
        self._unwritten = ""
        self._offset = 0
        self._index = 0

    @property
    def is_announced(self) -> bool:
        """Whether any of it was announced."""
        return self._index > 0

    def gather(self, chunk: str) -> None:
        """Keep a chunk for the next write."""
        self._gathered.append(chunk)

    def discard(self) -> None:
        """Forget what was gathered since the last write."""
        self._gathered.clear()

    def begin_write(self) -> Write | None:
        """The next write: what was gathered, and what Redis has not taken before. None if nothing was gathered."""
        text = "".join(self._gathered)
        if not text:
            return None
        self._gathered.clear()
        self._unwritten += text
        delta = announcements.from_delta(self.claim, self._index, text)
        self._index += 1
        self.is_being_written = True
        self.next_write = time.monotonic() + INTERVAL_SECONDS  # of what comes meanwhile
        return Write(self.claim.user_id, self._offset, self._unwritten, delta)

    def end_write(self, *, is_taken: bool) -> None:
        """Record whether Redis took the write."""
        if is_taken:
            self._offset += len(self._unwritten.encode())
            self._unwritten = ""
        self.is_being_written = False
        self.next_write = time.monotonic() + INTERVAL_SECONDS


class DeltaPublisher:
    """Stores and announces the chunks of all attempts of this process, from one thread and in few round trips.

    The first chunk of an attempt after FIRST_DELTA_SECONDS, then every INTERVAL_SECONDS those that have gathered, also
    if no other chunk comes. If Redis is unavailable, sockets miss some of the text, as the next index shows; the stored
    text is complete after the next write.

    Args:
        keep_interrupted: Keeps what an attempt (a prompt's id, a number) has published, although it has no answer.
    """

    def __init__(self, partial_text: PartialText, keep_interrupted: Callable[[int, int], None] | None = None) -> None:
        self._partial_text = partial_text
        self._keep_interrupted = keep_interrupted
        self._due: list[tuple[float, int, Deltas]] = []  # a heap
        self._order = itertools.count()
        self._changed = threading.Condition()  # guards the heap and all Deltas
        self._thread: threading.Thread | None = None

    @contextmanager
    def attempt(self, claim: Claim) -> Iterator[Deltas]:
        """Publish what is added within the block.

        At its end the rest is announced, unless nothing was: then the finished event has all of the text.
        """
        if claim.attempt > 1:  # the worker of the attempt before may have been killed
            self.keep_interrupted(claim.id, claim.attempt - 1)
        deltas = Deltas(claim)
        is_answered = False
        try:
            yield deltas
            is_answered = True
        finally:
            with self._changed:
                while deltas.is_being_written:
                    self._changed.wait()
                if not deltas.is_announced:
                    deltas.discard()
                # Begun before anything else can: nothing is announced after the end.
                writes = self._begin([deltas])
            self._write(writes)
            if deltas.is_announced:
                if not is_answered:
                    self.keep_interrupted(claim.id, claim.attempt)
                self._partial_text.end(claim.id, claim.attempt)

    def keep_interrupted(self, prompt_id: int, attempt: int) -> None:
        """Keep what this attempt has published, although it has ended without an answer."""
        if self._keep_interrupted is not None:
            self._keep_interrupted(prompt_id, attempt)

    def add(self, deltas: Deltas, chunk: str) -> None:
        """Add a chunk of the answer."""
        with self._changed:
            deltas.gather(chunk)
            if deltas.is_scheduled:
                return
            deltas.is_scheduled = True
            heapq.heappush(self._due, (deltas.next_write, next(self._order), deltas))
            if self._due[0][2] is deltas:
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._publish, name="deltas", daemon=True)
                self._thread.start()

    def _publish(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > time.monotonic():
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                writes = self._begin(self._pop_due())
            try:
                self._write(writes)
            except Exception:
                log.exception("deltas not published")

    def _pop_due(self) -> list[Deltas]:
        now, due = time.monotonic(), []
        while self._due and self._due[0][0] <= now:
            deltas = heapq.heappop(self._due)[2]
            deltas.is_scheduled = False
            due.append(deltas)
        return due

    @staticmethod
    def _begin(due: Sequence[Deltas]) -> list[tuple[Deltas, Write]]:
        """The writes that are due. The caller holds the lock."""
        return [(each, write) for each in due if (write := each.begin_write()) is not None]

    def _write(self, writes: Sequence[tuple[Deltas, Write]]) -> None:
        if not writes:
            return
        taken = [False] * len(writes)
        try:
            taken = self._partial_text.write([write for _, write in writes])
        finally:  # attempts wait for it
            with self._changed:
                for (each, _), is_taken in zip(writes, taken, strict=True):
                    each.end_write(is_taken=is_taken)
                self._changed.notify_all()
