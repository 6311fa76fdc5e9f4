"""The text of answers while they are generated, in Redis, so that whoever joins late, anywhere, sees all of it.

A convenience with a time limit: it may be lost at any time, and the whole answer is in Postgres when the prompt has
ended. Positions are counted in bytes of UTF-8. Pub/sub only says "look now".
"""

from datetime import timedelta

import structlog
from redis import Redis, RedisError
from redis.client import NEVER_DECODE

from shared.messaging import announcements
from shared.messaging.announcements import Announcement

log = structlog.get_logger(__name__)

#: How long the text of an attempt that is over is still there: until the answer is in Postgres, and some more.
AFTERWARDS = timedelta(seconds=10)

# What is between two writes of which the first was lost.
_HOLE = b"\0"


class PartialText:
    """The text so far of each attempt at a prompt. What nobody adds to for `lifetime` is forgotten."""

    def __init__(self, redis: Redis, lifetime: timedelta) -> None:
        self._redis = redis
        self._lifetime = lifetime

    def write(self, user_id: int, offset: int, text: str, announcement: Announcement) -> bool:
        """Adds text from that position on, and announces that, in one round trip. Returns whether Redis took it.

        The same may be written again.
        """
        name = _name(announcement.prompt_id, announcement.attempt)
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                if offset:
                    pipeline.setrange(name, offset, text)
                    pipeline.pexpire(name, self._lifetime)
                else:  # whatever was there: after a crash of Postgres an attempt may come again
                    pipeline.set(name, text, px=self._lifetime)
                pipeline.publish(announcements.channel(user_id), announcement.encode())
                pipeline.execute()
        except RedisError as error:
            log.warning("running text not written", error=type(error).__name__)
            return False
        return True

    def read(self, prompt_id: int, attempt: int, offset: int) -> str:
        """What there is from that position on, if anything."""
        try:
            found: bytes = self._redis.execute_command(
                "GETRANGE", _name(prompt_id, attempt), offset, -1, **{NEVER_DECODE: True}
            )
        except RedisError as error:
            log.warning("running text not read", error=type(error).__name__)
            return ""
        return found.partition(_HOLE)[0].decode(errors="ignore")

    def end(self, prompt_id: int, attempt: int) -> None:
        """Has it forgotten soon."""
        try:
            self._redis.pexpire(_name(prompt_id, attempt), AFTERWARDS)
        except RedisError as error:
            log.warning("running text left to expire", error=type(error).__name__)


def _name(prompt_id: int | None, attempt: int) -> str:
    return f"promptwire:text:{prompt_id}:{attempt}"
