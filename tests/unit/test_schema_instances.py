# ruff: noqa: E501 - a schema is a line
"""Instances that the simulated generator makes are valid by their JSON schemas; impossible schemas are refused."""

import json
import time
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.providers.schema_instances import UnsatisfiableSchemaError, instance

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "friend": {"$ref": "#/$defs/person"}},
    "required": ["name"],
    "additionalProperties": False,
}
NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["value", "next"],
    "additionalProperties": False,
}
BRANCHES = [
    {
        "type": "object",
        "properties": {"op": {"const": op}, "left": {"$ref": "#/$defs/n"}, "right": {"$ref": "#/$defs/n"}},
        "required": ["op", "left", "right"],
        "additionalProperties": False,
    }
    for op in "+-*/%&|^"
]
LEAF = {"type": "object", "properties": {"op": {"const": "leaf"}}, "required": ["op"], "additionalProperties": False}
CONDITION = {
    "type": "object",
    "properties": {"kind": {"enum": ["a", "b"]}, "x": {"type": "integer"}, "y": {"type": "string"}},
    "required": ["kind"],
    "if": {"properties": {"kind": {"const": "b"}}},
    "then": {"required": ["x"], "maxProperties": 2},
    "else": {"required": ["y"]},
}

# fmt: off
SCHEMAS: dict[str, Any] = {
    "true": True,
    "no keyword": {},
    **{f"type {name}": {"type": name} for name in ("string", "integer", "number", "boolean", "null", "array", "object")},
    "types": {"type": ["null", "integer"]},
    "enum": {"enum": ["x", 1, None]},
    "enum and type": {"enum": ["x", 1, None], "type": ["null", "boolean"]},
    "const": {"const": {"a": [1]}},
    "bounds": {"type": "integer", "minimum": 5, "maximum": 5},
    "negative": {"type": "integer", "exclusiveMaximum": -3},
    "bounds without type": {"maximum": -3},
    "exclusive bounds": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
    "far bounds": {"type": "number", "minimum": 1000.5, "exclusiveMaximum": 1001},
    "narrow bounds": {"type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.11},
    "multipleOf": {"type": "integer", "multipleOf": 7, "minimum": 50},
    "decimal multipleOf": {"type": "number", "multipleOf": 0.1, "minimum": 0.25},
    "length": {"type": "string", "minLength": 20, "maxLength": 22},
    "short": {"type": "string", "maxLength": 2},
    "pattern": {"type": "string", "pattern": r"^[A-Z]{3}-\d{4}$"},
    "pattern and length": {"type": "string", "pattern": "^(foo|bar)+$", "minLength": 9},
    "pattern of classes": {"type": "string", "pattern": r"^[^a-z]\s\w\S.$"},
    "pattern with lookahead": {"type": "string", "pattern": "^(?=.*a)[a-z]+$"},
    "pattern of a decimal": {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"},
    **{f"format {name}": {"type": "string", "format": name} for name in ("date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid", "json-pointer", "regex")},
    "properties": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a", "b"], "additionalProperties": False},
    "required but not declared": {"type": "object", "required": ["zzz"]},
    "minProperties": {"type": "object", "minProperties": 3, "additionalProperties": {"type": "integer"}},
    "maxProperties": {"type": "object", "maxProperties": 1, "properties": {"a": {}, "b": {}}, "required": ["b"]},
    "patternProperties": {"type": "object", "patternProperties": {"^x_": {"type": "integer"}}, "additionalProperties": False, "minProperties": 2},
    "propertyNames": {"type": "object", "propertyNames": {"pattern": "^[A-Z]+$"}, "minProperties": 1},
    "dependentRequired": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"type": "object", "required": ["a"], "dependentSchemas": {"a": {"properties": {"b": {"type": "integer"}}, "required": ["b"]}}},
    "items": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
    "maxItems": {"type": "array", "maxItems": 0},
    "uniqueItems": {"type": "array", "uniqueItems": True, "minItems": 3, "items": {"enum": [1, 2, 3]}},
    "prefixItems": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False, "minItems": 2},
    "items of draft 7": {"$schema": "http://json-schema.org/draft-07/schema#", "type": "array", "items": [{"$ref": "#/definitions/x"}, {"type": "string"}], "additionalItems": False, "minItems": 2, "definitions": {"x": {"type": "integer"}}},
    "contains": {"type": "array", "contains": {"const": 7}, "items": {"type": "integer"}, "minItems": 2},
    "minContains": {"type": "array", "contains": {"type": "string"}, "minContains": 2, "maxContains": 2},
    "anyOf": {"anyOf": [False, {"type": "integer"}]},
    "anyOf beside properties": {"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "oneOf": {"oneOf": [{"multipleOf": 5}, {"multipleOf": 3}], "type": "integer"},
    "oneOf of kinds": {"oneOf": [{"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in ("cat", "dog")]},
    "allOf": {"allOf": [{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"a": {"minimum": 9}}}]},
    "not": {"type": ["string", "integer"], "not": {"type": "string"}},
    "not required": {"type": "object", "properties": {"a": {"type": "string"}}, "not": {"required": ["a"]}},
    "if, then, else": CONDITION,
    "if with a kind": CONDITION | {"properties": CONDITION["properties"] | {"kind": {"const": "b"}}},
    "$ref and $defs": {"$ref": "#/$defs/person", "$defs": {"person": PERSON}},
    "$ref with an escaped name": {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "integer"}}},
    "$ref to itself": {"type": "object", "properties": {"kids": {"type": "array", "items": {"$ref": "#"}}}, "required": ["kids"]},
    "$ref by $id": {"$id": "https://example.com/s", "type": "array", "minItems": 1, "items": {"$ref": "https://example.com/s#/$defs/e"}, "$defs": {"e": {"enum": ["q"]}}},
    "$anchor": {"$ref": "#here", "$defs": {"a": {"$anchor": "here", "type": "integer"}}},
    "recursion": {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    **{f"trees by {key}": {"$ref": "#/$defs/n", "$defs": {"n": {key: [*BRANCHES, LEAF]}}} for key in ("anyOf", "oneOf")},
    "a property named $ref": {"type": "object", "properties": {"$ref": {"type": "string"}}, "required": ["$ref"]},
    "unevaluatedProperties": {"type": "object", "allOf": [{"properties": {"a": {"type": "integer"}}}], "unevaluatedProperties": False, "required": ["a"]},
    "much": {"type": "object", "properties": {f"p{i}": {"type": "array", "items": {"$ref": "#/$defs/person"}, "minItems": 3} for i in range(20)}, "required": [f"p{i}" for i in range(20)], "$defs": {"person": PERSON}},
}
IMPOSSIBLE: dict[str, Any] = {
    "false": False,
    "crossed bounds": {"type": "integer", "minimum": 3, "maximum": 2},
    "two types": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "a required property that may not be": {"type": "object", "required": ["a"], "additionalProperties": False},
    "a reference to itself": {"$ref": "#"},
    "a reference to nothing": {"$ref": "#/nope"},
    "recursion without an end": {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"l": {"$ref": "#/$defs/n"}, "r": {"$ref": "#/$defs/n"}}, "required": ["l", "r"]}}},
    "too many items": {"type": "array", "minItems": 10**9},
    "too many properties": {"type": "object", "minProperties": 10**9},
    "too many properties of a pattern": {"type": "object", "minProperties": 10**12, "patternProperties": {"^x": {}}},
    "too long a string": {"type": "string", "minLength": 10**9},
    "too long a pattern": {"type": "string", "pattern": "((a{1000}){1000}){1000}"},
    "an invalid pattern": {"type": "string", "pattern": "(a"},
    "too many alternatives": {"anyOf": [{"anyOf": [{"anyOf": [False] * 30}] * 30}] * 30},
}
# fmt: on


def is_valid(value: Any, schema: Any) -> bool:
    return jsonschema_rs.validator_for(schema, validate_formats=True).is_valid(value)


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_instance_is_valid_by_its_schema(name: str) -> None:
    made = instance(SCHEMAS[name])
    assert is_valid(made, SCHEMAS[name]), made
    assert is_valid(json.loads(json.dumps(made)), SCHEMAS[name])


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_always_has_the_same_instance(name: str) -> None:
    assert json.dumps(instance(SCHEMAS[name])) == json.dumps(instance(SCHEMAS[name]))


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_schema_that_cannot_be_satisfied_is_an_error_that_says_so_within_a_bounded_time(name: str) -> None:
    started = time.process_time()
    with pytest.raises(UnsatisfiableSchemaError, match=r"no valid answer for this JSON schema: \w+") as raised:
        instance(IMPOSSIBLE[name])
    assert not raised.value.retryable
    assert time.process_time() - started < 10  # usually below 0.2 s


def test_optional_properties_are_there_and_recursion_ends_early() -> None:
    made = instance(SCHEMAS["$ref and $defs"])
    assert set(made) == {"name", "friend"}
    assert json.dumps(made).count("name") <= 4
    assert json.dumps(instance(SCHEMAS["recursion"])).count("value") <= 5


_scalars = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.tuples(st.integers(-50, 50), st.integers(0, 9)).map(
        lambda each: {"type": "integer", "minimum": each[0], "maximum": sum(each)}
    ),
    st.tuples(st.integers(0, 9), st.integers(0, 9)).map(
        lambda each: {"type": "string", "minLength": each[0], "maxLength": sum(each)}
    ),
    st.lists(st.integers() | st.text(), min_size=1).map(lambda values: {"enum": values}),
)


def _composed(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(["a", "b", "c", "d"])
    objects = st.tuples(st.dictionaries(names, inner), st.sets(names), st.booleans()).map(
        lambda each: {
            "type": "object",
            "properties": each[0],
            "required": sorted(each[1] & set(each[0])),
            "additionalProperties": each[2],
        }
    )
    arrays = st.tuples(inner, st.integers(0, 3), st.integers(0, 2)).map(
        lambda each: {"type": "array", "items": each[0], "minItems": each[1], "maxItems": each[1] + each[2]}
    )
    choices = st.tuples(st.sampled_from(["anyOf", "allOf"]), inner).map(lambda each: {each[0]: [each[1]]})
    return st.one_of(
        objects, arrays, choices, st.lists(inner, min_size=1, max_size=3).map(lambda all_: {"anyOf": all_})
    )


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.recursive(_scalars, _composed, max_leaves=8))
def test_any_satisfiable_schema_has_a_valid_instance(schema: dict[str, Any]) -> None:
    assert is_valid(instance(schema), schema)
