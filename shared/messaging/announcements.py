"""What is announced: an event's JSON, and how it travels from whoever committed it to the relays.

Redis pub/sub may lose announcements, and nothing is lost: every one bears its feed number, and a relay that sees a gap
reads the feed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pydantic_core
import structlog
from redis import Redis, RedisError

from shared import timestamps
from shared.db.models import Change
from shared.prompts.claims import Claim
from shared.prompts.feed import FinishedPrompt
from shared.prompts.submission import Deletion

log = structlog.get_logger(__name__)

#: On this one travels, to every API process, whose login has ended.
LOGINS_CHANNEL = "promptwire:logins"
_CHANNEL_PREFIX = "promptwire:user:"


def channel(user_id: int) -> str:
    """The Redis channel on which a user's news travels."""
    return f"{_CHANNEL_PREFIX}{user_id}"


def user_of(channel_name: str) -> int:
    """The user whose channel this is."""
    return int(channel_name.removeprefix(_CHANNEL_PREFIX))


@dataclass(frozen=True, slots=True)
class Announcement:
    """News for one user.

    `seq` is the feed number of an ending or a deletion, None for more text, which has none. `prompt_id` and `attempt`
    say whose it is. `message` is the JSON text for the user's sockets, None if they are not to be told.

    Without a `prompt_id` it is a hint: with a `seq`, that the feed has reached it; with none, that a login has ended.
    """

    seq: int | None
    prompt_id: int | None = None
    attempt: int = 0
    message: str | None = None
    traceparent: str | None = None  #: of the trace that the push is a part of

    def encode(self) -> str:
        fields = {"seq": self.seq, "prompt_id": self.prompt_id, "attempt": self.attempt, "message": self.message}
        if self.traceparent is not None:
            fields["traceparent"] = self.traceparent
        return to_json(fields)

    @classmethod
    def decode(cls, data: str | bytes) -> "Announcement":
        """Raises ValueError, KeyError or TypeError if the data is not what `encode` makes."""
        fields = pydantic_core.from_json(data)
        needed = fields["seq"], fields["prompt_id"], fields["attempt"], fields["message"]
        return cls(*needed, fields.get("traceparent"))


LOGIN_ENDED = Announcement(None)


def from_finished(ending: FinishedPrompt, traceparent: str | None = None) -> Announcement:
    message = to_json(finished_event(ending)) if ending.websocket else None
    return Announcement(ending.seq, ending.prompt_id, ending.attempt, message, traceparent)


def from_deletion(deletion: Deletion) -> Announcement:
    return Announcement(deletion.seq, deletion.prompt_id, deletion.attempt)


def from_delta(claim: Claim, index: int, text: str) -> Announcement:
    if not claim.websocket:
        return Announcement(None, claim.id, claim.attempt)
    delta = {"type": "prompt.delta", "id": claim.id, "attempt": claim.attempt, "index": index, "text": text}
    return Announcement(None, claim.id, claim.attempt, to_json(delta))


def finished_event(ending: FinishedPrompt) -> dict[str, Any]:
    """The event of a finished prompt."""
    event = {
        "type": f"prompt.{ending.change}",
        "seq": ending.seq,
        "id": ending.prompt_id,
        "user": ending.username,
        "prompt_text": ending.prompt_text,
        "response_text": ending.response_text,
        "model": ending.model,
        "usage": usage(ending.prompt_tokens, ending.completion_tokens),
        "cached_from": ending.cached_from,
        "status": ending.change,
        "created_at": timestamps.rfc3339(ending.created_at),
        "completed_at": timestamps.rfc3339(ending.at),
        "timestamp": timestamps.now(),
        "request_id": ending.request_id,
    }
    return event if ending.change == Change.COMPLETED else event | {"error": ending.error}


def usage(prompt_tokens: int | None, completion_tokens: int | None) -> dict[str, int] | None:
    """What an answer took, in the names and with the sum that OpenAI's API has; None if that is not known."""
    if prompt_tokens is None or completion_tokens is None:
        return None
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def to_json(value: object) -> str:
    """Compact JSON."""
    return pydantic_core.to_json(value).decode()


class Announcer:
    """Publishes announcements, best effort. Announce only what is committed."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def announce(self, *announcements: tuple[int, Announcement]) -> None:
        """Tells users' news, in one round trip: each with the id of the user."""
        self._publish([(channel(user_id), announcement.encode()) for user_id, announcement in announcements])

    def login_ended(self, user_id: int) -> None:
        """Tells every API process that a login of this user has ended."""
        self._publish([(LOGINS_CHANNEL, str(user_id))])

    def _publish(self, messages: Sequence[tuple[str, str]]) -> None:
        if not messages:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for name, data in messages:
                    pipeline.publish(name, data)
                pipeline.execute()
        except RedisError as error:
            log.warning("not announced", messages=len(messages), error=type(error).__name__)
