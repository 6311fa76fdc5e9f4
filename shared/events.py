"""What is announced: an event's JSON, and how it travels from whoever committed it to the relays.

Redis pub/sub may lose announcements, and nothing is lost: every one bears its feed number, and a relay that sees a gap
reads the feed.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import structlog
from redis import Redis, RedisError

from shared import timestamps
from shared.feed import Ending
from shared.models import Change
from shared.prompts import Claim, Deletion

log = structlog.get_logger(__name__)

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

    `seq` is the feed number of an ending or a deletion, None for a delta, which has none. `prompt_id` and `attempt` say
    whose it is. `message` is the JSON text for the user's sockets, None if they are not to be told.

    Without a `prompt_id` it is a hint: with a `seq`, that the feed has reached it; with none, that a login has ended.
    """

    seq: int | None
    prompt_id: int | None = None
    attempt: int = 0
    message: str | None = None

    def encode(self) -> str:
        return to_json(asdict(self))

    @classmethod
    def decode(cls, data: str | bytes) -> "Announcement":
        """Raises ValueError, KeyError or TypeError if the data is not what `encode` makes."""
        fields = json.loads(data)
        return cls(fields["seq"], fields["prompt_id"], fields["attempt"], fields["message"])


LOGIN_ENDED = Announcement(None)


def of_ending(ending: Ending) -> Announcement:
    message = to_json(ending_event(ending)) if ending.prompt.websocket else None
    return Announcement(ending.entry.seq, ending.prompt.id, ending.prompt.attempt, message)


def of_deletion(deletion: Deletion) -> Announcement:
    return Announcement(deletion.seq, deletion.prompt_id, deletion.attempt)


def of_delta(held: Claim, index: int, text: str) -> Announcement:
    delta = {"type": "prompt.delta", "id": held.id, "attempt": held.attempt, "index": index, "text": text}
    return Announcement(None, held.id, held.attempt, to_json(delta))


def ending_event(ending: Ending) -> dict[str, Any]:
    """The event of a finished prompt, as CONTRACT rows of the WebSocket name its fields.

    It tells the prompt as it was at that number, though it may have been retried since.
    """
    entry, prompt = ending.entry, ending.prompt
    completed = entry.change == Change.COMPLETED
    event = {
        "type": f"prompt.{entry.change}",
        "seq": entry.seq,
        "id": prompt.id,
        "user": ending.username,
        "prompt_text": prompt.prompt_text,
        "response_text": prompt.response_text if completed else None,
        "status": entry.change,
        "created_at": timestamps.rfc3339(prompt.created_at),
        "completed_at": timestamps.rfc3339(entry.at),
        "timestamp": timestamps.now(),
        "request_id": prompt.request_id,
    }
    return event if completed else event | {"error": entry.error}


def to_json(value: object) -> str:
    """Compact JSON, in UTF-8 rather than escapes. Raises ValueError for numbers that JSON does not have."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Announcer:
    """Publishes announcements, best effort. Announce only what is committed."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def announce(self, user_id: int, announcement: Announcement) -> None:
        try:
            self._redis.publish(channel(user_id), announcement.encode())
        except RedisError as error:
            log.warning("not announced", user_id=user_id, seq=announcement.seq, error=type(error).__name__)
