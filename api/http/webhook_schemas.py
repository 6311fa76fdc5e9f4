"""Webhooks in requests and responses: pydantic models, and functions that render what the database has."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.http.fields import MAX_ID, Cursor, Id, Moment, PageSize, SeqNumber, Storable
from api.http.openapi.models import Answer, Body, Parameters, Query, example
from api.http.prompt_schemas import PromptResource
from shared import timestamps
from shared.db.models import BatchStatus, DeliveryStatus, Webhook, WebhookAttempt
from shared.openai import ids
from shared.openai.ids import IdPrefix
from shared.webhooks.addresses import MAX_URL_CHARACTERS
from shared.webhooks.delivery_log import LoggedDelivery
from shared.webhooks.events import EventType, message_id
from shared.webhooks.webhooks import format_secret

MAX_DESCRIPTION_LENGTH = 500

Url = Annotated[Storable, Field(min_length=1, max_length=MAX_URL_CHARACTERS, json_schema_extra={"format": "uri"})]
Events = Annotated[list[Annotated[EventType, Field(strict=False)]], Field(min_length=1, max_length=len(EventType))]
Description = Annotated[Storable, Field(max_length=MAX_DESCRIPTION_LENGTH)]
_URL = "Where events are sent: https, and a public address."
_EVENTS = "The types of the events that it gets; null for all but `batch.progress`."


class NewWebhook(Body):
    """An endpoint for events."""

    url: Url = Field(description=_URL)
    events: Events | None = Field(None, description=_EVENTS)
    description: Description = Field("", description="A note for yourself.")


class WebhookChanges(Body):
    """What to change of a webhook. What is left out stays as it is."""

    # Without defaults in the schema: `model_fields_set` says what the client sent.
    url: Url = Field(default_factory=str, description=_URL)
    events: Events | None = Field(default_factory=lambda: None, description=_EVENTS)
    description: Description = Field(default_factory=str, description="A note for yourself.")
    disabled: bool = Field(
        default_factory=bool,
        description="true: nothing is sent. false: pending events are sent, at once.",
    )


class Recovery(Body):
    """The last event that the receiver has."""

    since: SeqNumber = Field(description="Its `seq`; 0 for all events that are kept.")


class WebhookPath(Parameters):
    webhook_id: int = Field(ge=1, le=MAX_ID, description="The webhook's `id`.", json_schema_extra=example(1))


class DeliveryPath(WebhookPath):
    delivery_id: int = Field(ge=1, le=MAX_ID, description="The delivery's `id`.", json_schema_extra=example(12))


class DeliveriesQuery(Query):
    limit: PageSize = 20
    status: DeliveryStatus | None = Field(None, description="Only deliveries with this status.")
    cursor: Cursor = None


class _WebhookFields(BaseModel):
    id: Id
    url: str
    events: list[EventType] | None = Field(description=_EVENTS)
    description: str
    status: Literal["enabled", "paused", "disabled"] = Field(
        description="`paused`: the last delivery failed, and the next one waits until `paused_until`. `disabled`: "
        "nothing is sent, for the `disabled_reason`."
    )
    disabled_reason: str | None
    paused_until: Moment | None
    failures: int = Field(description="How many deliveries failed in succession.")
    previous_secret_expires_at: Moment | None = Field(
        description="Until when the secret before the last rotation signs, too."
    )
    created_at: Moment


class WebhookResource(_WebhookFields, Answer):
    """An endpoint for events."""


class WebhookWithSecret(_WebhookFields, Answer):
    """An endpoint for events, with its new secret. No other response has the secret."""

    secret: str = Field(description="The key of the signatures, `whsec_` and base64. Keep it: it is shown once.")


class DeliveryAttempt(Answer):
    """An attempt to send an event."""

    number: int
    at: Moment
    status_code: int | None = Field(description="The status of the response; null without one.")
    error: str | None = Field(description="Why there was no response, or what is wrong with it.")
    seconds: float = Field(description="How long it took.")


class DeliveryResource(Answer):
    """An event that is sent to a webhook."""

    id: Id
    message_id: str = Field(description="The header `webhook-id`, the same in each attempt and replay of the event.")
    event: str = Field(description="Its type: `prompt.completed` and so on, or `webhook.test`.")
    seq: int | None = Field(description="The event's number; null for a test event and for progress.")
    prompt_id: Id | None
    batch_id: str | None = Field(description="The batch of the event, as `/v1/batches` has it.")
    status: DeliveryStatus = Field(description="`pending` → `delivered` or `failed`, which is final unless replayed.")
    attempts: list[DeliveryAttempt] = Field(description="The newest 20 attempts, oldest first.")
    next_attempt_at: Moment | None = Field(description="The earliest time of the next attempt, while `pending`.")
    created_at: Moment = Field(description="When it became pending.")
    ended_at: Moment | None = Field(description="When it was delivered or given up.")


class RecoveredDeliveries(Answer):
    """What a recovery does."""

    deliveries: int = Field(description="How many events are sent again.")


class EventPrompt(PromptResource):
    """The prompt of an event, as it was then."""

    seq: int = Field(description="The event's number. Numbers rise; a gap may be an event that was lost.")


class PromptEvent(Answer):
    """What a webhook gets when a prompt ends."""

    type: EventType
    timestamp: Moment = Field(description="When the event happened.")
    data: EventPrompt


class _BatchFields(BaseModel):
    id: str
    endpoint: str
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    request_counts: dict[str, int]
    metadata: dict[str, str]


class EventBatch(_BatchFields):
    """The batch of an event. Its ids are those of OpenAI's API."""

    seq: int
    status: Literal["completed", "failed", "expired", "cancelled"]


class BatchEvent(Answer):
    """What a webhook gets when a batch ends."""

    type: EventType
    timestamp: Moment
    data: EventBatch


class BatchProgress(_BatchFields):
    """A batch as it is when the event is sent."""

    status: BatchStatus


class BatchProgressEvent(Answer):
    """What a webhook that asks for it gets while a batch is worked on."""

    type: Literal[EventType.BATCH_PROGRESS]
    timestamp: Moment
    data: BatchProgress


class TestedWebhook(BaseModel):
    """The webhook that is tested."""

    webhook_id: Id


class TestEvent(Answer):
    """What a webhook gets as a test."""

    type: Literal["webhook.test"]
    timestamp: Moment
    data: TestedWebhook


def webhook_resource(webhook: Webhook) -> dict[str, Any]:
    """Render a webhook as a WebhookResource."""
    now = datetime.now(UTC)
    is_paused = webhook.paused_until is not None and webhook.paused_until > now
    status = "enabled" if not is_paused else "paused"
    expires_at = webhook.previous_secret_expires_at
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": webhook.events,
        "description": webhook.description,
        "status": status if webhook.disabled_at is None else "disabled",
        "disabled_reason": webhook.disabled_reason,
        "paused_until": timestamps.rfc3339_or_none(webhook.paused_until if is_paused else None),
        "failures": webhook.failures,
        "previous_secret_expires_at": timestamps.rfc3339_or_none(
            expires_at if expires_at and expires_at > now else None
        ),
        "created_at": timestamps.rfc3339(webhook.created_at),
    }


def webhook_with_secret(webhook: Webhook) -> dict[str, Any]:
    """Render a webhook as a WebhookWithSecret."""
    return webhook_resource(webhook) | {"secret": format_secret(webhook.secret)}


def delivery_resource(logged: LoggedDelivery) -> dict[str, Any]:
    """Render a delivery as a DeliveryResource."""
    delivery = logged.delivery
    is_pending = delivery.status == DeliveryStatus.PENDING
    return {
        "id": delivery.id,
        "message_id": message_id(delivery.webhook_id, delivery.event, delivery.seq, delivery.id),
        "event": delivery.event,
        "seq": delivery.seq,
        "prompt_id": delivery.prompt_id,
        "batch_id": None if delivery.batch_id is None else ids.make(IdPrefix.BATCH, delivery.batch_id),
        "status": delivery.status,
        "attempts": [_attempt(attempt) for attempt in logged.attempts],
        "next_attempt_at": timestamps.rfc3339(delivery.next_attempt_at) if is_pending else None,
        "created_at": timestamps.rfc3339(delivery.created_at),
        "ended_at": timestamps.rfc3339_or_none(delivery.ended_at),
    }


def _attempt(attempt: WebhookAttempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "at": timestamps.rfc3339(attempt.at),
        "status_code": attempt.status_code,
        "error": attempt.error,
        "seconds": attempt.seconds,
    }
