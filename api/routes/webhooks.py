"""Webhooks: their settings and secrets, what was sent to them, and sending again."""

from functools import partial
from http import HTTPStatus
from typing import Any

from flask import Response, abort, jsonify
from flask_openapi3 import Tag

from api.auth.permissions import require_prompts, require_scope
from api.auth.principal import current_actor, current_principal
from api.auth.tokens import Authenticator
from api.http import problems
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.responses import Responses, empty_response, error_responses, json_response
from api.http.pages import add_older_link, decode_before, json_page, set_location
from api.http.webhook_schemas import (
    DeliveriesQuery,
    DeliveryPath,
    DeliveryResource,
    NewWebhook,
    RecoveredDeliveries,
    Recovery,
    WebhookChanges,
    WebhookPath,
    WebhookResource,
    WebhookWithSecret,
    delivery_resource,
    webhook_resource,
    webhook_with_secret,
)
from shared.accounts import audit
from shared.db.engine import Sessions
from shared.db.models import Scope
from shared.errors import (
    DeliveryNotFoundError,
    DeliveryPendingError,
    EventNotKeptError,
    InsufficientScopeError,
    SinceOutOfRangeError,
    TooManyWebhooksError,
    WebhookDisabledError,
    WebhookNotFoundError,
)
from shared.settings import Settings
from shared.webhooks import delivery_log, replay, webhooks
from shared.webhooks.addresses import check_url

_secret = partial(json_response, WebhookWithSecret)
_webhook = partial(json_response, WebhookResource)
_delivery = partial(json_response, DeliveryResource)

_NOT_FOUND, _DISABLED = WebhookNotFoundError(), WebhookDisabledError()

CREATE: Responses = {
    201: _secret("It is added.", "new webhook", headers=("Location",)),
    **error_responses(413, 415, TooManyWebhooksError()),
}
INDEX: Responses = {200: json_response([WebhookResource], "All of them, oldest first.", "webhooks", "none")}
SHOW: Responses = {200: _webhook("The webhook.", "webhook", "paused", "disabled"), **error_responses(_NOT_FOUND)}
CHANGE: Responses = {
    200: _webhook("The changed webhook.", "webhook", "disabled"),
    **error_responses(413, 415, _NOT_FOUND),
}
DELETE: Responses = {204: empty_response("It is deleted."), **error_responses(_NOT_FOUND)}
ROTATE: Responses = {200: _secret("The webhook with its new secret.", "rotated"), **error_responses(_NOT_FOUND)}
TEST: Responses = {
    202: _delivery("The event `webhook.test` will be sent.", "test"),
    **error_responses(_NOT_FOUND, _DISABLED, DeliveryPendingError("A test event is still pending for this webhook.")),
}
DELIVERIES: Responses = {
    200: json_response([DeliveryResource], "A page.", "deliveries", "none", headers=("Link",)),
    **error_responses(_NOT_FOUND),
}
REPLAY: Responses = {
    202: _delivery("It will be sent again, at once.", "pending"),
    **error_responses(_NOT_FOUND, DeliveryNotFoundError(), _DISABLED, DeliveryPendingError(), EventNotKeptError()),
}
RECOVER: Responses = {
    202: json_response(RecoveredDeliveries, "The events will be sent again, in order.", "recovered"),
    **error_responses(413, 415, _NOT_FOUND, _DISABLED, SinceOutOfRangeError()),
}


class WebhookRoutes:
    """Views of webhooks."""

    def __init__(self, settings: Settings, sessions: Sessions, authenticator: Authenticator) -> None:
        self._settings = settings
        self._sessions = sessions
        self._authenticator = authenticator

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "webhooks",
            __name__,
            url_prefix="/webhooks",
            abp_tags=[Tag(name="Webhooks", description="Have events sent to a server of yours, signed.")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(400, 401, 500, 503, InsufficientScopeError(Scope.PROMPTS_WRITE)),
        )
        bp.before_request(self._authenticator.authenticate_request)
        # A webhook gets the answers, so a key that may not read them must not make one either.
        bp.before_request(require_scope(read=Scope.PROMPTS_READ, write=Scope.PROMPTS_READ))
        bp.before_request(require_prompts)
        one = "/<int:webhook_id>/"
        bp.post("/", operation_id="createWebhook", responses=CREATE)(self.create)
        bp.get("/", operation_id="listWebhooks", responses=INDEX)(self.index)
        bp.get(one, operation_id="getWebhook", responses=SHOW)(self.show)
        bp.patch(one, operation_id="changeWebhook", responses=CHANGE)(self.change)
        bp.delete(one, operation_id="deleteWebhook", responses=DELETE)(self.delete)
        bp.post(f"{one}rotate/", operation_id="rotateWebhookSecret", responses=ROTATE)(self.rotate)
        bp.post(f"{one}test/", operation_id="testWebhook", responses=TEST)(self.test)
        bp.get(f"{one}deliveries/", operation_id="listDeliveries", responses=DELIVERIES)(self.deliveries)
        bp.post(f"{one}deliveries/<int:delivery_id>/replay/", operation_id="replayDelivery", responses=REPLAY)(
            self.replay
        )
        bp.post(f"{one}recover/", operation_id="recoverEvents", responses=RECOVER)(self.recover)
        return bp

    def create(self, body: NewWebhook) -> Response:
        """Add a webhook: from now on, events are sent to its URL.

        The response is the only one that has the secret, with which the receiver checks the signatures.
        """
        self._check_url(body.url)
        user_id = current_principal().id
        with self._sessions.begin() as session:
            webhook = webhooks.create(session, user_id, body.url, events=_events(body), description=body.description)
            audit.record(session, current_actor(), "webhook.created", user_id, webhook_id=webhook.id)
        response = _with_status(HTTPStatus.CREATED, webhook_with_secret(webhook))
        set_location(response, f"/webhooks/{webhook.id}/")
        return response

    def index(self) -> Response:
        """List the caller's webhooks, oldest first."""
        with self._sessions() as session:
            return jsonify(
                [webhook_resource(webhook) for webhook in webhooks.list_all(session, current_principal().id)]
            )

    def show(self, path: WebhookPath) -> dict[str, Any]:
        """Get a webhook, without its secret."""
        with self._sessions() as session:
            return webhook_resource(webhooks.get(session, current_principal().id, path.webhook_id))

    def change(self, path: WebhookPath, body: WebhookChanges) -> dict[str, Any]:
        """Change a webhook's URL, events or description; disable it, or enable it again.

        While it is disabled, nothing is sent to it, and events that happen are not kept for it: `recover` sends them.
        """
        changes = body.model_dump(include=body.model_fields_set)
        if "url" in changes:
            self._check_url(body.url)
        if "events" in changes:
            changes["events"] = _events(body)
        user_id = current_principal().id
        with self._sessions.begin() as session:
            webhook = webhooks.change(session, user_id, path.webhook_id, changes)
            if "url" in changes:
                audit.record(session, current_actor(), "webhook.url_changed", user_id, webhook_id=webhook.id)
        return webhook_resource(webhook)

    def delete(self, path: WebhookPath) -> tuple[str, int]:
        """Delete a webhook and its deliveries. What is pending is not sent any more."""
        webhooks.delete(self._sessions, current_actor(), current_principal().id, path.webhook_id)
        return "", HTTPStatus.NO_CONTENT

    def rotate(self, path: WebhookPath) -> dict[str, Any]:
        """Give a webhook a new secret.

        For 24 hours requests are signed with the old secret, too. A second rotation ends the first secret at once.
        """
        user_id = current_principal().id
        with self._sessions.begin() as session:
            webhook = webhooks.rotate(session, user_id, path.webhook_id)
            audit.record(session, current_actor(), "webhook.rotated", user_id, webhook_id=webhook.id)
        return webhook_with_secret(webhook)

    def test(self, path: WebhookPath) -> Response:
        """Send the event `webhook.test`. Its delivery shows the result."""
        with self._sessions.begin() as session:
            delivery = replay.send_test(session, current_principal().id, path.webhook_id)
        return _with_status(HTTPStatus.ACCEPTED, delivery_resource(delivery_log.LoggedDelivery(delivery, [])))

    def deliveries(self, path: WebhookPath, query: DeliveriesQuery) -> Response:
        """List a webhook's deliveries, newest first, with their attempts.

        The next page is in the `Link` header. Deliveries are kept as long as the feed: 30 days by default.
        """
        before = decode_before(query.cursor)
        with self._sessions() as session:
            webhook = webhooks.get(session, current_principal().id, path.webhook_id)
            # One more shows whether there is a next page.
            found = delivery_log.page(session, webhook.id, limit=query.limit + 1, status=query.status, before=before)
        resources = map(delivery_resource, found[: query.limit])
        response, count = json_page(resources, self._settings.max_page_bytes)
        if count < len(found):
            before, link = found[count - 1].delivery.id, f"/webhooks/{webhook.id}/deliveries/"
            add_older_link(response, link, before=before, limit=query.limit, status=query.status)
        return response

    def replay(self, path: DeliveryPath) -> Response:
        """Send an event again, at once, with the same `webhook-id`."""
        with self._sessions.begin() as session:
            delivery = replay.replay(session, current_principal().id, path.webhook_id, path.delivery_id)
            (logged,) = delivery_log.with_attempts(session, [delivery])
        return _with_status(HTTPStatus.ACCEPTED, delivery_resource(logged))

    def recover(self, path: WebhookPath, body: Recovery) -> Response:
        """Send every event after a `seq` again, in order: what a receiver does that has missed some.

        Left out are events that the webhook did not ask for, and those of deleted prompts.
        """
        count = replay.recover(self._sessions, current_principal().id, path.webhook_id, body.since)
        return _with_status(HTTPStatus.ACCEPTED, {"deliveries": count})

    def _check_url(self, url: str) -> None:
        try:
            check_url(url, allow_private=self._settings.webhooks_may_be_private)
        except ValueError as error:
            abort(problems.invalid_field("url", str(error)))


def _events(body: NewWebhook | WebhookChanges) -> list[str] | None:
    """The types of events, each once."""
    return None if body.events is None else [event.value for event in dict.fromkeys(body.events)]


def _with_status(status: HTTPStatus, resource: dict[str, Any]) -> Response:
    response = jsonify(resource)
    response.status_code = status
    return response
