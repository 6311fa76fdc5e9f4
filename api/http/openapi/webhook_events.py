"""The `webhooks` of the OpenAPI document: the requests that the receivers of events get."""

from typing import Any

from api.http.openapi import batch_examples
from api.http.openapi.prompt_examples import EVENT_BODIES
from shared.webhooks import events

_HEADERS = {
    "webhook-id": ("The event's id, the same each time it is sent: an event that you have is a duplicate.", "msg_1_42"),
    "webhook-timestamp": ("When it was sent, in seconds since 1970. Refuse it if it is old.", "1795426200"),
    "webhook-signature": (
        "`v1,` and the base64 of HMAC-SHA256 of `id.timestamp.body` by the secret. For 24 hours after a rotation there "
        "are two, separated by a space: accept the request if one of them is right.",
        "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    ),
}
_BODIES = {**EVENT_BODIES, **batch_examples.EVENT_BODIES}
_SUMMARIES = {
    "prompt.completed": "A prompt was answered",
    "prompt.failed": "A prompt has failed",
    "prompt.cancelled": "A prompt was cancelled",
    "batch.completed": "A batch has been answered, and its files can be read",
    "batch.failed": "The file of a batch is not valid",
    "batch.expired": "A batch was not answered in time; what was answered can be read",
    "batch.cancelled": "A batch was cancelled; what was answered can be read",
    "batch.progress": "A batch has more answers: only for webhooks that ask for it",
    events.TEST: "A test that you have asked for",
}

#: The schemas of events that do not have that of a prompt's or a batch's end.
_KINDS = {events.TEST: "Test", "batch.progress": "BatchProgress"}


def _receive(event: str, summary: str) -> dict[str, Any]:
    kind = _KINDS.get(event, event.partition(".")[0].capitalize())
    schema = {"$ref": f"#/components/schemas/{kind}Event"}
    parameters = [
        {
            "name": name,
            "in": "header",
            "required": True,
            "description": text,
            "schema": {"type": "string"},
            "example": value,
        }
        for name, (text, value) in _HEADERS.items()
    ]
    return {
        "operationId": "receive" + "".join(part.capitalize() for part in event.split(".")),
        "summary": summary,
        "tags": ["Webhooks"],
        "parameters": parameters,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": schema, "example": _BODIES[event]}},
        },
        "responses": {
            "2XX": {"description": "The event has arrived."},
            "410": {"description": "The endpoint is gone: its webhook is disabled."},
            "default": {"description": "It is sent again later: after `Retry-After`, if that is longer."},
        },
    }


EVENTS: dict[str, Any] = {event: {"post": _receive(event, summary)} for event, summary in _SUMMARIES.items()}
