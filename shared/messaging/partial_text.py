"""The text of answers while they are generated, in Redis: a client that joins late, on any host, sees all of it.

It is a convenience and expires: it may be lost at any time, and Postgres has the whole answer once the prompt has
finished. Positions are counted in bytes of UTF-8. Announcements only say that there is more to read.
"""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import NamedTuple

import structlog
from redis import Redis, RedisError
from redis.client import NEVER_DECODE, Pipeline

from shared.messaging.announcements import Announcement
from shared.messaging.channels import Channels
from shared.messaging.redis import cause

log = structlog.get_logger(__name__)

#: How long the text of an attempt is kept after its end: until the answer is in Postgres, and some more.
RETENTION_AFTER_END = timedelta(seconds=10)

# The most that one read returns. The rest is read at the next announcement.
_MAX_READ_BYTES = 1 << 20
# SETRANGE fills the gap with these if an earlier write was lost.
_GAP = b"\0"
_COMMANDS = 3  # of a write


class Write(NamedTuple):
    """Text to write at a position, in bytes, and what to announce."""

    user_id: int
    offset: int
    text: str
    announcement: Announcement


class PartialText:
    """The text so far of each attempt at a prompt. It expires `lifetime` after the last write."""

    def __init__(self, redis: Redis, lifetime: timedelta) -> None:
        self._redis = redis
        self._channels = Channels(redis)
        self._lifetime = lifetime
        self._is_failing = False

    def write(self, writes: Sequence[Write]) -> list[bool]:
        """Write texts and announce them, in one round trip. Returns for each whether Redis took it.

        Writing the same again is harmless.
        """
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for write in writes:
                    self._add(pipeline, write)
                results = pipeline.execute(raise_on_error=False)
        except RedisError as error:
            self._record_failure(error)
            return [False] * len(writes)
        # Three results each; a key of another type fails only its own text.
        written = [not isinstance(result, RedisError) for result in results[::_COMMANDS]]
        if not all(written):
            self._record_failure(next(result for result in results if isinstance(result, RedisError)))
        elif self._is_failing:
            self._is_failing = False
            log.info("partial text written again")
        return written

    def _record_failure(self, error: RedisError) -> None:
        """Log the first failure of several. With hundreds of prompts there are hundreds of writes a second."""
        if not self._is_failing:
            self._is_failing = True
            log.warning("partial text not written", error=cause(error))

    def _add(self, pipeline: Pipeline, write: Write) -> None:
        """Add the _COMMANDS commands of a write."""
        name = _name(write.announcement.prompt_id, write.announcement.attempt)
        if write.offset:
            pipeline.setrange(name, write.offset, write.text)
        else:  # overwrites: after a crash of Postgres the same attempt number may come again
            pipeline.set(name, write.text)
        pipeline.pexpire(name, self._lifetime)
        pipeline.publish(self._channels.of_user(write.user_id), write.announcement.encode())

    def read(self, prompt_id: int, attempt: int, offset: int) -> str:
        """The text from a position on, at most 1 MiB of it; empty if there is none."""
        end = offset + _MAX_READ_BYTES - 1
        try:
            found: bytes = self._redis.execute_command(
                "GETRANGE", _name(prompt_id, attempt), offset, end, **{NEVER_DECODE: True}
            )
        except RedisError as error:
            log.warning("partial text not read", error=cause(error))
            return ""
        return found.partition(_GAP)[0].decode(errors="ignore")

    def delete(self, attempts: Collection[tuple[int, int]]) -> None:
        """Delete the texts of these prompts at these attempts."""
        if not attempts:
            return
        try:
            self._redis.unlink(*(_name(prompt_id, attempt) for prompt_id, attempt in attempts))
        except RedisError as error:
            log.warning("partial text not deleted", error=cause(error))

    def end(self, prompt_id: int, attempt: int) -> None:
        """Let the text expire soon."""
        try:
            self._redis.pexpire(_name(prompt_id, attempt), RETENTION_AFTER_END)
        except RedisError as error:
            log.warning("partial text not expired early", error=cause(error))


def _name(prompt_id: int | None, attempt: int) -> str:
    return f"promptwire:text:{prompt_id}:{attempt}"
