"""The document at /openapi.json is complete and valid, and its examples match their schemas."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from shared.webhooks import events
from shared.webhooks.events import EventType

METHODS = {"get", "post", "put", "patch", "delete"}

#: Blueprints that the document leaves out: sockets and pages.
UNDOCUMENTED_BLUEPRINTS = {"rooms", "docs", "page"}


@pytest.fixture
def document(app: Flask) -> dict[str, Any]:
    return app.test_client().get("/openapi.json").json


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield method, path, operation


def resolve(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Resolve a `$ref`; return anything else unchanged."""
    if "$ref" not in part:
        return part
    found = document
    for name in part["$ref"].removeprefix("#/").split("/"):
        found = found[name]
    return found


def examples(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield the place, the schema and the value of every example that has a schema."""

    def of(where: str, part: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
        values = [each["value"] for each in part.get("examples", {}).values()]
        for value in [*values, *([part["example"]] if "example" in part else [])]:
            if "schema" in part:
                yield where, part["schema"], value

    for name, header in document["components"]["headers"].items():
        yield from of(name, header)
    received = [(event, item["post"]) for event, item in document["webhooks"].items()]
    for where, operation in [*((each["operationId"], each) for _, _, each in operations(document)), *received]:
        for parameter in operation["parameters"]:
            yield from of(where, resolve(document, parameter))
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        for holder in [*bodies, *operation["responses"].values()]:
            for media in holder.get("content", {}).values():
                yield from of(where, media)


def test_the_document_describes_every_route(app: Flask, document: dict[str, Any]) -> None:
    served = {
        (method.lower(), re.sub("<(?:[a-z]+:)?([a-z_]+)>", r"{\1}", str(rule)))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if rule.endpoint.partition(".")[0] not in UNDOCUMENTED_BLUEPRINTS and str(rule) != "/openapi.json"
    }
    assert {(method, path) for method, path, _ in operations(document)} == served


def test_the_document_describes_every_event_that_webhooks_get(document: dict[str, Any]) -> None:
    assert set(document["webhooks"]) == {*EventType, events.TEST}


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    validate(document)


def test_every_example_matches_its_schema(document: dict[str, Any]) -> None:
    count = 0
    for where, schema, value in examples(document):
        whole = schema | {"components": document["components"]}
        found = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).iter_errors(value)
        assert [f"{where}: {error.message}" for error in found] == []
        count += 1
    assert count > 100


def test_every_operation_and_parameter_has_a_description(document: dict[str, Any]) -> None:
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    received = [item["post"] for item in document["webhooks"].values()]
    ids = [operation["operationId"] for operation in (*(each for _, _, each in operations(document)), *received)]
    assert len(ids) == len(set(ids))
    for _, _, operation in operations(document):
        assert operation["summary"]
        assert all(tags[tag] for tag in operation["tags"])
        for parameter in operation["parameters"]:
            assert resolve(document, parameter)["description"]


def test_every_body_has_an_example(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        for holder in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for media in holder.get("content", {}).values():
                assert media.get("examples") or media.get("example"), operation["operationId"]


def test_every_error_response_is_a_problem_or_below_v1_an_error_of_openai(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        for status, response in operation["responses"].items():
            assert "content" in response or status in ("204", "303", "304")
            if int(status) >= 400 and operation["operationId"] != "isReady":
                media = "application/json" if path.startswith("/v1/") else "application/problem+json"
                schema = "OpenAIError" if path.startswith("/v1/") else "Problem"
                assert response["content"].keys() == {media}
                assert response["content"][media]["schema"] == {"$ref": f"#/components/schemas/{schema}"}


WITH_TOKEN = ("/prompts/", "/auth/keys/", "/account/", "/usage/", "/webhooks/", "/admin/", "/v1/")


def test_every_operation_that_needs_a_token_declares_it(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        assert bool(operation["security"]) == path.startswith(WITH_TOKEN)
        assert not operation["security"] or "WWW-Authenticate" in operation["responses"]["401"]["headers"]


def test_each_response_header_is_described_once(document: dict[str, Any]) -> None:
    used = {
        name
        for _, _, operation in operations(document)
        for response in operation["responses"].values()
        for name, header in response.get("headers", {}).items()
        if header == {"$ref": f"#/components/headers/{name}"}
    }
    assert used == set(document["components"]["headers"])
