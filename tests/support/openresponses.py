"""The published schema of Open Responses: everything that `/v1/responses` sends is validated against it."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs
from werkzeug.test import TestResponse

from tests.support.servers import ROOT

_DOCUMENT = ROOT / "tests" / "data" / "openresponses" / "openapi-2026-04-24.json"
_DONE = "[DONE]"


@cache
def _schemas() -> dict[str, Any]:
    return json.loads(_DOCUMENT.read_text())["components"]["schemas"]


@cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": _schemas()}}
    return jsonschema_rs.Draft202012Validator(schema)


@cache
def event_schemas() -> dict[str, str]:
    """The schema of each kind of event."""
    names = (name for name in _schemas() if name.endswith("StreamingEvent"))
    return {_schemas()[name]["properties"]["type"]["enum"][0]: name for name in names}


def assert_valid(name: str, value: Any) -> Any:
    """Check a value against a schema of Open Responses. Returns it."""
    errors = [f"{error.instance_path}: {error.message}" for error in _validator(name).iter_errors(value)]
    assert errors == []
    return value


def assert_resource(response: TestResponse, status: int = 200) -> dict[str, Any]:
    """Check that the response is a valid response resource. Returns it."""
    assert response.status_code == status, response.text
    return assert_valid("ResponseResource", response.json)


def assert_event(event: dict[str, Any]) -> dict[str, Any]:
    """Check an event against the schema of its kind. Returns it."""
    return assert_valid(event_schemas()[event["type"]], event)


def parse_events(text: str) -> list[dict[str, Any]]:
    """The events of a whole stream, each checked. It must end with `[DONE]`."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    assert blocks.pop() == f"data: {_DONE}"
    return list(_parse(blocks))


def _parse(blocks: list[str]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        kind, data = block.split("\n")
        event = assert_event(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {event['type']}"
        yield event


def text_of(events: list[dict[str, Any]]) -> str:
    """The text of all deltas together."""
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
