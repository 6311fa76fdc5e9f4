"""The events that webhooks get: `{"type", "timestamp", "data"}`, as the Standard Webhooks specification wants them."""

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import pydantic_core

from shared import timestamps
from shared.batches.ended_event import EndedBatch
from shared.batches.progress import PROGRESS_EVENT
from shared.db.models import Status
from shared.prompts.answer import Answer
from shared.prompts.queries import PromptRow
from shared.prompts.resource import prompt_resource

#: The type of a test event.
TEST = "webhook.test"
_PROMPT = "prompt."


class EventType(StrEnum):
    """The type of an event that a webhook may ask for."""

    COMPLETED = "prompt.completed"
    FAILED = "prompt.failed"
    CANCELLED = "prompt.cancelled"
    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"
    #: Only for webhooks that ask for it by name: it comes again and again, and says nothing that lasts.
    BATCH_PROGRESS = PROGRESS_EVENT


class Event(NamedTuple):
    """An event, and the id that it has each time it is sent, also by a replay."""

    message_id: str
    body: str


def message_id(webhook_id: int, event: str, seq: int | None, delivery_id: int) -> str:
    """The `webhook-id` of an event. Test events and progress have no `seq`.

    It depends on nothing else, so that retries, replays and recoveries have the same one.
    """
    if seq is not None:
        return f"msg_{webhook_id}_{seq}"
    return f"msg_{webhook_id}_{event.rpartition('.')[2]}_{delivery_id}"


def from_prompt(
    message_id: str, event: str, seq: int, prompt: PromptRow, username: str, *, at: datetime, error: str | None
) -> Event:
    """The event `prompt.completed`, `prompt.failed` or `prompt.cancelled`.

    It shows the prompt as it was at that number of its user's feed, though it may have been retried since.
    """
    status = event.removeprefix(_PROMPT)
    answer = prompt.answer if status == Status.COMPLETED else Answer()
    prompt = prompt._replace(status=status, error=error, seq=seq, completed_at=at, answer=answer)
    return Event(message_id, _body(event, at, {**prompt_resource(prompt, username), "seq": seq}))


def from_batch(message_id: str, ended: EndedBatch) -> Event:
    """The event of a batch that has ended."""
    return Event(message_id, _body(ended.event, ended.at, {**ended.data, "seq": ended.seq}))


def from_progress(message_id: str, batch: dict[str, Any], at: datetime) -> Event:
    """The event `batch.progress`, of a batch as it is now."""
    return Event(message_id, _body(PROGRESS_EVENT, at, batch))


def from_test(message_id: str, webhook_id: int, at: datetime) -> Event:
    """The event `webhook.test`."""
    return Event(message_id, _body(TEST, at, {"webhook_id": webhook_id}))


def _body(event: str, at: datetime, data: dict[str, Any]) -> str:
    return pydantic_core.to_json({"type": event, "timestamp": timestamps.rfc3339(at), "data": data}).decode()
