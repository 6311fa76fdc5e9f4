"""Whether an answer is what a prompt asked for: its format, its tool calls, and whether it says anything at all."""

import json
from typing import Any

import pytest

from shared.errors import ProviderError
from shared.providers import Usage
from shared.providers.model_request import Capability, ModelRequest
from worker.answer_checks import MAX_CHECKED_BYTES, BrokenAnswerError, check_answer, check_capabilities

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
JSON_SCHEMA = {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}}
JSON_OBJECT = {"response_format": {"type": "json_object"}}
TEXT = {"response_format": {"type": "text"}}


def tool(name: str = "get_weather", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA, **more}}


def call(arguments: Any, name: str = "get_weather") -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": text}}


STRICT, LAX = {"tools": [tool(strict=True)]}, {"tools": [tool()]}


@pytest.mark.parametrize(
    ("asked", "text", "reason"),
    [
        ({}, "anything", "stop"),
        (TEXT, "anything", "stop"),
        (JSON_OBJECT, "{}", "stop"),
        (JSON_OBJECT, ' {"a": [1.5, null]}\n', None),
        (JSON_SCHEMA, '{"city": "Bern", "people": 7}', "stop"),
        (JSON_SCHEMA, '{"city": "Be', "length"),
        (JSON_OBJECT, "{", "length"),
        (JSON_SCHEMA, "I cannot", "content_filter"),
        (LAX, "No tool is needed.", "stop"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "any"}}}, "5", "stop"),
    ],
)
def test_an_answer_that_is_what_was_asked_for_or_was_cut_is_kept(
    asked: dict[str, Any], text: str, reason: str | None
) -> None:
    usage = Usage("m", 1, 2, reason)
    assert check_answer(text, usage, ModelRequest(**asked)) == usage


@pytest.mark.parametrize(
    ("asked", "text", "words"),
    [
        (
            JSON_OBJECT,
            "Sure! Here it is:",
            'is not JSON: expected value at line 1 column 1. It begins "Sure! Here it is:"',
        ),
        (JSON_OBJECT, "```json\n{}\n```", "is not JSON"),
        (JSON_OBJECT, "[1]", 'not a JSON object: "[1]"'),
        (JSON_OBJECT, '{"a": NaN}', "is not JSON"),
        (JSON_OBJECT, '{"a": 1', "is not JSON: EOF while parsing an object at line 1 column 7"),
        (JSON_SCHEMA, "Bern", "is not JSON"),
        (JSON_SCHEMA, "{}", '"city" is a required property'),
        (JSON_SCHEMA, '{"city": "Bern", "people": "7"}', 'people: "7" is not of type "integer"'),
        (JSON_SCHEMA, '{"city": "Bern", "more": 1}', "'more' was unexpected"),
        (JSON_SCHEMA, '"' + "x" * MAX_CHECKED_BYTES + '"', f"more than {MAX_CHECKED_BYTES} characters"),
        (JSON_SCHEMA, "[" * 100_000, "is not JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_an_answer_that_breaks_its_format_says_where(asked: dict[str, Any], text: str, words: str) -> None:
    with pytest.raises(BrokenAnswerError) as raised:
        check_answer(text, Usage(finish_reason="stop"), ModelRequest(**asked))
    assert words in str(raised.value)
    assert len(str(raised.value)) < 600
    assert raised.value.retryable


@pytest.mark.parametrize("reason", ["stop", None, "tool_calls"])
@pytest.mark.parametrize(
    ("asked", "arguments"),
    [(STRICT, {"city": "Bern"}), (LAX, {"city": "Bern"}), (LAX, {"nonsense": 1}), (LAX, "{"), (LAX | JSON_SCHEMA, {})],
    ids=str,
)
def test_tool_calls_need_no_text_and_are_the_finish_reason(
    asked: dict[str, Any], arguments: Any, reason: str | None
) -> None:
    usage = Usage("m", finish_reason=reason, tool_calls=[call(arguments)])
    assert check_answer("", usage, ModelRequest(**asked)) == usage._replace(finish_reason="tool_calls")


def test_tool_calls_of_an_answer_that_was_cut_say_so() -> None:
    usage = Usage("m", finish_reason="length", tool_calls=[call({})])
    assert check_answer("", usage, ModelRequest(**LAX)).finish_reason == "length"


@pytest.mark.parametrize(
    ("asked", "called", "words"),
    [
        ({}, call({}), "though it was offered none"),
        (LAX, call({}, "get_time"), 'that it was not offered: "get_time"'),
        (STRICT, call({}), 'do not fit its schema: get_weather: "city" is a required property'),
        (STRICT, call("{"), "not JSON: get_weather: EOF"),
    ],
)
def test_tool_calls_that_are_not_offered_or_break_a_strict_tool_say_so(
    asked: dict[str, Any], called: dict[str, Any], words: str
) -> None:
    with pytest.raises(BrokenAnswerError) as raised:
        check_answer("Let me see.", Usage(tool_calls=[called]), ModelRequest(**asked))
    assert words in str(raised.value)
    assert raised.value.retryable


def test_an_invalid_schema_that_an_earlier_version_let_through_fails_for_good() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}
    with pytest.raises(ProviderError, match="JSON schema of the prompt is not valid") as raised:
        check_answer("{}", Usage(), ModelRequest(response_format=wanted))
    assert not raised.value.retryable


def test_what_a_generator_cannot_do_is_refused_for_good() -> None:
    asked = ModelRequest(temperature=1.0, instructions="Be brief.", stop=["x"])
    with pytest.raises(ProviderError) as raised:
        check_capabilities(asked, {Capability.INSTRUCTIONS}, "tiny")
    assert str(raised.value) == "The generator tiny cannot do what the prompt asks for: stop, temperature."
    assert not raised.value.retryable
    check_capabilities(asked, set(Capability), "tiny")
