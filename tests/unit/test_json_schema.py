"""JSON Schemas that users send: which are refused, and how answers are checked with the others."""

import json
from itertools import pairwise
from typing import Any

import pytest

from shared.providers.json_schema import InvalidSchemaError, check_schema, validate

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


def _nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def _doubling(names: list[str]) -> dict[str, Any]:
    """Each definition refers twice to the one before."""
    defs = {later: {"allOf": [{"$ref": f"#/$defs/{earlier}"}] * 2} for earlier, later in pairwise(names)}
    return {"$ref": f"#/$defs/{names[-1]}", "$defs": {names[0]: {"type": "string"}, **defs}}


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "strin"}, "strin"),
        ({"properties": []}, "object"),
        ([], "neither an object nor a boolean"),
        ({"pattern": "("}, "regex"),
        ({"$ref": "#/$defs/missing"}, "does not exist"),
        ({"$schema": "http://example.com/own"}, "meta-schema"),
        ({"const": float("nan")}, "JSON"),
        ({"const": "\ud800"}, "surrogates"),
        ({"const": "a\0b"}, "NUL"),
        ({"enum": ["x" * 100] * 1000}, "100000 characters"),
        (_nested(65), "64 levels"),
        (_nested(10_000), "nested too deeply"),
        (_doubling([f"d{number}" for number in range(40)]), "references written out"),
    ],
)
def test_a_schema_that_is_not_valid_or_too_large_is_refused_with_its_field(schema: object, reason: str) -> None:
    with pytest.raises(InvalidSchemaError, match=reason) as refused:
        check_schema(schema, "response_format.json_schema.schema")
    assert refused.value.fields == ["response_format.json_schema.schema"]
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/schema", "https://example.com/s", "file:///etc/passwd"])
def test_a_reference_to_another_document_is_never_fetched(address: str) -> None:
    with pytest.raises(InvalidSchemaError, match="Retrieval is disabled"):
        check_schema({"$ref": address})


@pytest.mark.parametrize(
    "schema",
    [
        True,
        PERSON,
        {"const": r"\u0000"},
        _nested(64),
        {"pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"},  # pydantic writes this for a decimal
        {"$ref": "#/$defs/tree", "$defs": {"tree": {"properties": {"left": {"$ref": "#/$defs/tree"}}}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
    ],
)
def test_a_valid_schema_is_accepted(schema: object) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("instance", "wrong"),
    [
        ({"age": 4}, None),
        ({"age": "four"}, 'age: "four" is not of type "integer"'),
        ({}, '"age" is a required property'),
        ([], '[] is not of type "object"'),
    ],
)
def test_what_is_wrong_with_an_answer_names_its_place(instance: object, wrong: str | None) -> None:
    assert validate(instance, PERSON) == wrong


def test_what_is_wrong_with_a_long_answer_is_short() -> None:
    assert len(validate({"age": "x" * 100_000}, PERSON) or "") == 300


def test_an_answer_that_cannot_be_checked_is_not_valid() -> None:
    instance: list[Any] = []
    for _ in range(5000):
        instance = [instance]
    assert validate(instance, {"type": "object"}) is not None
    assert validate("\ud800", {"const": "a"}) is not None


_ITSELF = {"a": {"$ref": "#"}}


@pytest.mark.parametrize(
    ("schema", "answer", "says"),
    [
        # The library makes twice as many errors at each level.
        (
            {"anyOf": [{"properties": _ITSELF, "required": ["x"]}, {"properties": _ITSELF, "required": ["y"]}]},
            '{"a":' * 60 + "1" + "}" * 60,
            "too large to say where",
        ),
        ({"anyOf": [{"items": {"type": "string"}}] * 2_000}, [1] * 400, "too large to say where"),
        ({"items": {"allOf": [{"type": "integer"}] * 4_000}}, [1] * 300_000, "too large to be checked"),
    ],
)
def test_checking_an_answer_does_not_take_for_ever(schema: dict[str, Any], answer: str | list[int], says: str) -> None:
    check_schema(schema)
    instance = json.loads(answer) if isinstance(answer, str) else answer
    assert says in (validate(instance, schema) or "")


def test_a_large_answer_is_checked_against_a_recursive_schema() -> None:
    node = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}}
    schema = {"type": "array", "items": {"$ref": "#/$defs/node"}, "$defs": {"node": node}}
    assert validate([{"next": {"next": {"next": None}}}] * 10_000, schema) is None
    assert validate([{"next": {"next": 4}}], schema) == (
        "0/next: {\"next\":4} is not valid under any of the schemas listed in the 'anyOf' keyword"
    )


def test_a_pattern_that_backtracks_without_end_does_not_match() -> None:
    assert "backtracking" in (validate("a" * 50 + "b", {"pattern": r"^(a|a)*\1$"}) or "")
