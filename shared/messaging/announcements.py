"""Announcements: the JSON of events, published over Redis pub/sub by the process that committed the change.

Redis pub/sub may lose announcements, but no event is lost: each has its feed number, and a relay that sees a gap reads
the feed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import pydantic_core
import structlog
from pydantic import BaseModel, ConfigDict, Field
from redis import Redis, RedisError

from shared import timestamps
from shared.batches.ended_event import EndedBatch
from shared.batches.progress import PROGRESS_EVENT
from shared.db.models import Change
from shared.messaging.channels import Channels
from shared.messaging.redis import cause
from shared.prompts.claims import Claim
from shared.prompts.feed import DeletedPrompt, FinishedPrompt
from shared.prompts.submission import Deletion

log = structlog.get_logger(__name__)

# PostgreSQL's bigint.
_MAX_NUMBER = 2**63 - 1


def parse_user_id(text: str) -> int | None:
    """A user's id from a message of the channel of ended logins; None if it is not one."""
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_NUMBER))
    return int(text) if is_number and 0 < int(text) <= _MAX_NUMBER else None


_Number = Annotated[int, Field(ge=1, le=_MAX_NUMBER)]


class _Fields(BaseModel):
    """What `Announcement.encode` writes."""

    model_config = ConfigDict(strict=True)

    seq: _Number | None
    prompt_id: _Number | None
    attempt: Annotated[int, Field(ge=0, le=_MAX_NUMBER)]
    message: str | None
    traceparent: Annotated[str, Field(max_length=64)] | None = None


@dataclass(frozen=True, slots=True)
class Announcement:
    """A notification for one user.

    `seq` is the feed number of a finished or deleted prompt, None for a delta, which has none. `prompt_id` and
    `attempt` identify what it is about. `message` is the JSON text for the user's sockets, None if they get none.

    Without a `prompt_id` it is the progress of a batch, which is for sockets alone, if it has a `message`. Otherwise it
    is a hint: that the feed has reached `seq`, or, without `seq`, that a login has ended.
    """

    seq: int | None
    prompt_id: int | None = None
    attempt: int = 0
    message: str | None = None
    traceparent: str | None = None  #: of the trace that the push is a part of
    #: `seq` is lower than a number that was announced: an older state of the database was restored. Never encoded.
    restored: bool = False

    @property
    def is_login_ended(self) -> bool:
        """Whether it says that a login of the user has ended."""
        return self.seq is None and self.prompt_id is None and self.message is None

    def encode(self) -> str:
        fields = {"seq": self.seq, "prompt_id": self.prompt_id, "attempt": self.attempt, "message": self.message}
        if self.traceparent is not None:
            fields["traceparent"] = self.traceparent
        return to_json(fields)

    @classmethod
    def decode(cls, data: str | bytes) -> "Announcement":
        """Decode what `encode` returned.

        All fields are validated, because a wrong number would break the feed checks of all users of the process.

        Raises:
            ValueError: the data is not an announcement.
        """
        fields = _Fields.model_validate_json(data)
        if fields.message is not None:
            _check_event(fields.message, fields.seq, fields.prompt_id)
        return cls(fields.seq, fields.prompt_id, fields.attempt, fields.message, fields.traceparent)


LOGIN_ENDED = Announcement(None)


def _check_event(message: str, seq: int | None, prompt_id: int | None) -> None:
    """Raise ValueError unless the message is an event of this prompt, or the progress of a batch, with this number."""
    event = pydantic_core.from_json(message, allow_inf_nan=False)
    is_event = isinstance(event, dict) and isinstance(event.get("type"), str) and event.get("seq") == seq
    if not is_event or (event["type"] != PROGRESS_EVENT if prompt_id is None else event.get("id") != prompt_id):
        raise ValueError("The message is not an event of this prompt with this number.")


def from_finished(finished: FinishedPrompt, traceparent: str | None = None) -> Announcement:
    message = to_json(finished_event(finished)) if finished.websocket else None
    return Announcement(finished.seq, finished.prompt_id, finished.attempt, message, traceparent)


def from_deletion(deletion: Deletion) -> Announcement:
    return Announcement(deletion.seq, deletion.prompt_id, deletion.attempt)


def from_delta(claim: Claim, index: int, text: str) -> Announcement:
    if not claim.websocket:
        return Announcement(None, claim.id, claim.attempt)
    delta = {"type": "prompt.delta", "id": claim.id, "attempt": claim.attempt, "index": index, "text": text}
    return Announcement(None, claim.id, claim.attempt, to_json(delta))


def from_progress(data: dict[str, Any]) -> Announcement:
    """The progress of a batch, for every socket of its user."""
    return Announcement(None, message=to_json({"type": PROGRESS_EVENT, **data, "timestamp": timestamps.now()}))


def event(happened: FinishedPrompt | DeletedPrompt | EndedBatch) -> dict[str, Any]:
    """What a socket gets of an entry of the feed."""
    if isinstance(happened, DeletedPrompt):
        at = timestamps.rfc3339(happened.at)
        return {"type": "prompt.deleted", "seq": happened.seq, "id": happened.prompt_id, "deleted_at": at}
    return ended_event(happened) if isinstance(happened, EndedBatch) else finished_event(happened)


def ended_event(ended: EndedBatch) -> dict[str, Any]:
    """The event of a batch that has ended."""
    return {"type": ended.event, "seq": ended.seq, **ended.data, "timestamp": timestamps.now()}


def finished_event(finished: FinishedPrompt) -> dict[str, Any]:
    """The event of a finished prompt."""
    event = {
        "type": f"prompt.{finished.change}",
        "seq": finished.seq,
        "id": finished.prompt_id,
        "user": finished.username,
        "prompt_text": finished.prompt_text,
        "response_text": finished.answer.response_text,
        "model": finished.route,
        "metadata": finished.metadata or {},
        **finished.answer.details(),
        "status": finished.change,
        "created_at": timestamps.rfc3339(finished.created_at),
        "completed_at": timestamps.rfc3339(finished.at),
        "timestamp": timestamps.now(),
        "request_id": finished.request_id,
    }
    return event if finished.change == Change.COMPLETED else event | {"error": finished.error}


def to_json(value: object) -> str:
    """Compact JSON."""
    return pydantic_core.to_json(value).decode()


class Announcer:
    """Publishes announcements, best effort. Announce only what is committed."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._channels = Channels(redis)

    def announce(self, *announcements: tuple[int, Announcement]) -> None:
        """Publish announcements, each with the id of its user, in one round trip."""
        self._publish(
            [(self._channels.of_user(user_id), announcement.encode()) for user_id, announcement in announcements]
        )

    def login_ended(self, user_id: int) -> None:
        """Notify every API process that a login of this user has ended."""
        self._publish([(self._channels.logins, str(user_id))])

    def _publish(self, messages: Sequence[tuple[str, str]]) -> None:
        if not messages:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for name, data in messages:
                    pipeline.publish(name, data)
                pipeline.execute()
        except RedisError as error:
            log.warning("announcements not published", messages=len(messages), error=cause(error))
