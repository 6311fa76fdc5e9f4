"""Attempts at prompts that ask for more than an answer to their text: when they succeed, and when they fail."""

import dataclasses
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from shared.accounts.metering import Prices
from shared.db.engine import Sessions
from shared.providers import Usage
from shared.providers.json_schema import validate
from shared.providers.model_request import Capability
from tests.integration.test_misbehaving_generators import Yielding
from tests.support.client import ApiUser
from worker.pipeline import Pipeline

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = {"response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}}
TOOLS = {"tools": [{"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA, "strict": True}}]}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'}}
Answered = Callable[..., dict]


@pytest.fixture
def answered(alice: ApiUser, worker: Pipeline, sessions: Sessions) -> Answered:
    """Submits a prompt that asks for this, and has it answered once, by a generator that yields these parts."""

    def answer(asked: dict[str, Any], *parts: object, attempts: int = 1, **changes: Any) -> dict:
        prompt_id = alice.submit("What is the weather?")
        with sessions.begin() as session:
            values = {"id": prompt_id, "asked": json.dumps(asked), "attempts": attempts}
            change = "UPDATE prompts SET request = CAST(:asked AS jsonb), attempt_limit = :attempts WHERE id = :id"
            session.execute(text(change), values)
        if parts:
            changes["generator"] = Yielding(*parts)
        dataclasses.replace(worker, **changes).process(1)
        return alice.show(prompt_id)

    return answer


@pytest.mark.parametrize(
    ("asked", "parts", "error"),
    [
        (FORMAT, ["{}"], """The model's answer does not fit its JSON schema: "city" is a required property."""),
        (FORMAT, ["Sure! ", "{}"], """The model's answer is not JSON: expected value at line 1 column 1. It begins"""),
        ({"response_format": {"type": "json_object"}}, ["[]"], """The model's answer is not a JSON object: "[]"."""),
        (
            TOOLS,
            [Usage(tool_calls=[{**CALL, "function": {"name": "get_weather", "arguments": "{}"}}])],
            "The model called",
        ),
        ({}, ["Hm. ", Usage(tool_calls=[CALL])], "The model called a tool instead of answering, though"),
        (TOOLS, [Usage(tool_calls=[{"id": "x"}])], "The generator yielded tool calls that are not those of chat"),
    ],
)
def test_an_answer_that_breaks_what_was_asked_for_is_a_failed_attempt(
    answered: Answered, asked: dict[str, Any], parts: list[object], error: str
) -> None:
    again = answered(asked, *parts, attempts=2)
    assert (again["status"], again["attempt"], again["response_text"]) == ("queued", 1, None)
    failed = answered(asked, *parts)
    assert (failed["status"], failed["response_text"], failed["tool_calls"]) == ("failed", None, None)
    assert failed["error"].startswith(error)


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ([], "The model returned no text."),
        ([Usage(finish_reason="length")], "The model returned no text before its length limit."),
        ([Usage(finish_reason="tool_calls")], "The model returned no text, only calls of tools."),
    ],
)
def test_no_text_at_all_is_a_failed_attempt_that_says_which(
    answered: Answered, parts: list[object], error: str
) -> None:
    assert answered(FORMAT | TOOLS, "", *parts)["error"] == error


def test_an_answer_cut_by_length_is_completed_and_says_so_whatever_its_schema(answered: Answered) -> None:
    shown = answered(FORMAT, '{"city": "Be', Usage(finish_reason="length"))
    assert (shown["status"], shown["finish_reason"]) == ("completed", "length")


def test_tool_calls_without_text_complete_a_prompt(answered: Answered) -> None:
    shown = answered(TOOLS, Usage("m", 5, 6, "stop", [CALL]))
    assert (shown["status"], shown["response_text"]) == ("completed", "")
    assert (shown["finish_reason"], shown["tool_calls"]) == ("tool_calls", [CALL])


def test_text_beside_tool_calls_is_kept_too(answered: Answered) -> None:
    shown = answered(TOOLS, "Let me ", "see.", Usage(tool_calls=[CALL]))
    assert (shown["response_text"], shown["tool_calls"]) == ("Let me see.", [CALL])


def test_what_the_database_cannot_hold_is_replaced_in_tool_calls(answered: Answered) -> None:
    function = {"name": "get_weather", "arguments": '{"city": "\\u0000 \ud800"}'}
    lax = {"tools": [{"type": "function", "function": {"name": "get_weather"}}]}
    (call,) = answered(lax, Usage(tool_calls=[{"id": None, "function": function}]))["tool_calls"]
    assert call["function"]["arguments"] == '{"city": "\\u0000 ?"}'
    assert call["id"].startswith("call_")


def test_tool_calls_count_as_part_of_the_longest_answer(answered: Answered) -> None:
    long = {**CALL, "function": {"name": "get_weather", "arguments": json.dumps({"city": "x" * 90})}}
    shown = answered(TOOLS, "x" * 20, Usage(tool_calls=[long]), max_answer_bytes=100, attempts=3)
    assert (shown["status"], shown["error"]) == ("failed", "The answer has more than 100 bytes (MAX_ANSWER_BYTES).")


def test_what_the_generator_lacks_fails_the_prompt_at_once_without_asking_it(answered: Answered) -> None:
    shown = answered({"temperature": 1.0}, "never", attempts=3, capabilities=frozenset({Capability.TOP_P}))
    assert (shown["status"], shown["attempt"]) == ("failed", 1)
    assert shown["error"] == "The generator yielding cannot do what the prompt asks for: temperature."


def test_the_conversation_and_the_calls_are_metered(answered: Answered, sessions: Sessions) -> None:
    earlier = [{"role": "user", "content": "x" * 400}]
    answered(TOOLS | {"messages": earlier}, Usage(tool_calls=[CALL]), prices=Prices(Decimal(1), Decimal(1)))
    with sessions() as session:
        used = session.execute(text("SELECT prompt_tokens, completion_tokens FROM usage")).one()
    assert used.prompt_tokens > 100 + 20  # the earlier message, and the definition of the tool
    assert used.completion_tokens == -(-len("get_weather" + CALL["function"]["arguments"]) // 4)  # type: ignore[index]


def test_the_simulated_generator_answers_by_a_schema_and_calls_tools(answered: Answered) -> None:
    shown = answered(FORMAT)
    assert validate(json.loads(shown["response_text"]), SCHEMA) is None
    shown = answered(TOOLS)
    assert (shown["status"], shown["finish_reason"], len(shown["tool_calls"])) == ("completed", "tool_calls", 1)
