"""Webhooks: a method for each call of the API."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NotRequired, TypedDict, cast

from .http import json_list, json_object
from .pages import read_pages
from .session import Session

EventType = Literal[
    "prompt.completed",
    "prompt.failed",
    "prompt.cancelled",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
    "batch.progress",
]

DeliveryStatus = Literal["pending", "delivered", "failed"]


class Webhook(TypedDict):
    """An endpoint to which events are sent. Only a new or rotated one has its `secret`."""

    id: int
    url: str
    events: list[EventType] | None
    description: str
    status: Literal["enabled", "paused", "disabled"]
    disabled_reason: str | None
    paused_until: str | None
    failures: int
    previous_secret_expires_at: str | None
    created_at: str
    secret: NotRequired[str]


class Attempt(TypedDict):
    """An attempt to send an event."""

    number: int
    at: str
    status_code: int | None
    error: str | None
    seconds: float


class Delivery(TypedDict):
    """An event that is sent to a webhook. `seq` and `prompt_id` are None for a test event."""

    id: int
    message_id: str
    event: str
    seq: int | None
    prompt_id: int | None
    batch_id: str | None
    status: DeliveryStatus
    attempts: list[Attempt]
    next_attempt_at: str | None
    created_at: str
    ended_at: str | None


#: How long the server may take for a webhook with hundreds of thousands of events.
_LONG_SECONDS = 60.0


class Webhooks:
    """The user's webhooks, as `Client.webhooks`. Errors are those of the client."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def create(self, url: str, *, events: Sequence[EventType] | None = None, description: str = "") -> Webhook:
        """Add a webhook, for all events but `batch.progress` by default.

        Only this result and that of `rotate` have the `secret`.
        """
        body = {"url": url, "events": events, "description": description}
        return self._webhook("POST", "/webhooks/", json=body, idempotent=False)

    def list(self) -> list[Webhook]:
        """Return the webhooks, oldest first."""
        return cast("list[Webhook]", json_list(self._session.request("GET", "/webhooks/"), "id", "url"))

    def show(self, webhook_id: int) -> Webhook:
        """Return a webhook."""
        return self._webhook("GET", f"/webhooks/{webhook_id}/")

    def update(self, webhook_id: int, **changes: object) -> Webhook:
        """Change the `url`, `events` (None: all) or `description`, or whether it is `disabled`."""
        return self._webhook("PATCH", f"/webhooks/{webhook_id}/", json=changes)

    def delete(self, webhook_id: int) -> None:
        """Delete a webhook. What is pending is not sent any more."""
        self._session.delete(f"/webhooks/{webhook_id}/", server_wait=_LONG_SECONDS)

    def rotate(self, webhook_id: int) -> Webhook:
        """Give a webhook a new `secret`. The old one signs, too, for 24 hours."""
        return self._webhook("POST", f"/webhooks/{webhook_id}/rotate/", idempotent=False)

    def test(self, webhook_id: int) -> Delivery:
        """Send the event `webhook.test`."""
        return self._delivery(f"/webhooks/{webhook_id}/test/")

    def deliveries(
        self, webhook_id: int, *, status: DeliveryStatus | None = None, limit: int | None = None
    ) -> Iterator[Delivery]:
        """Yield what was sent, newest first: at most `limit`, or all."""
        yield from read_pages(self._session, f"/webhooks/{webhook_id}/deliveries/", limit, status=status)

    def replay(self, webhook_id: int, delivery_id: int) -> Delivery:
        """Send an event again. Raises ProblemError (409) if it is still pending, or there is nothing left to send."""
        return self._delivery(f"/webhooks/{webhook_id}/deliveries/{delivery_id}/replay/")

    def recover(self, webhook_id: int, since: int) -> int:
        """Send every event after this `seq` again, in order. Returns how many these are."""
        path, body = f"/webhooks/{webhook_id}/recover/", {"since": since}
        response = self._session.request("POST", path, json=body, server_wait=_LONG_SECONDS)
        return int(json_object(response, "deliveries")["deliveries"])

    def _webhook(self, method: str, path: str, **options: Any) -> Webhook:
        return cast(Webhook, json_object(self._session.request(method, path, **options), "id", "url"))

    def _delivery(self, path: str) -> Delivery:
        return cast(Delivery, json_object(self._session.request("POST", path, idempotent=False), "id", "status"))
