"""The simulated generator does what a prompt asks for, so that all of it can be tried without a model."""

import json
from typing import Any

import pytest

from shared.errors import ProviderError
from shared.prompts.answer import FinishReason
from shared.providers import Exchange, GenerationRequest, Usage
from shared.providers.factory import capabilities
from shared.providers.json_schema import validate
from shared.providers.model_request import Capability, ModelRequest
from shared.providers.simulated import SimulatedGenerator
from tests.support.servers import make_settings

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the temperature and rain of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "day": {"$ref": "#/$defs/day"}},
            "required": ["city", "unit", "day"],
            "additionalProperties": False,
            "$defs": {"day": {"type": "string", "format": "date"}},
        },
    },
}
MAIL = {"type": "function", "function": {"name": "sendMail", "description": "Sends a letter to a person."}}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer", "minimum": 1000}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def request(prompt: str = "Explain tides", **asked: Any) -> GenerationRequest:
    return GenerationRequest(prompt, idempotency_key="1-1", asked=ModelRequest(**asked))


def ask(prompt: str = "Explain tides", **asked: Any) -> tuple[str, Usage]:
    *chunks, usage = SimulatedGenerator().generate(request(prompt, **asked))
    assert isinstance(usage, Usage)
    return "".join(map(str, chunks)), usage


def called(usage: Usage) -> list[tuple[str, Any]]:
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in usage.tool_calls or ()]


def test_the_simulated_generator_declares_all_but_reasoning() -> None:
    assert capabilities(make_settings()) == set(Capability) - {Capability.REASONING_EFFORT}


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 2.0},
        {"top_p": 0.1},
        {"seed": 7},
        {"frequency_penalty": 2, "presence_penalty": -2},
        {"max_output_tokens": 10_000},
        {"stop": ["never said"]},
        {"response_format": {"type": "text"}},
        {"tools": [WEATHER]},
        {"tools": [WEATHER], "tool_choice": "none"},
    ],
    ids=str,
)
def test_what_changes_nothing_leaves_the_answer_as_it_is(asked: dict[str, Any]) -> None:
    text, usage = ask(**asked)
    assert text == SimulatedGenerator.answer("Explain tides")
    assert (usage.finish_reason, usage.tool_calls) == ("stop", None)


# Limits


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_max_output_tokens_cuts_the_answer_which_says_so(limit: int) -> None:
    text, usage = ask("Why “ü”?", max_output_tokens=limit)
    assert SimulatedGenerator.answer("Why “ü”?").startswith(text)
    assert (usage.finish_reason, usage.completion_tokens) == (FinishReason.LENGTH, limit)


def test_stop_ends_the_answer_before_the_first_of_its_texts() -> None:
    text, usage = ask(stop=["parts", "what it is for"])
    assert text.endswith("Start from ")
    assert usage.finish_reason == "stop"


def test_a_text_may_both_stop_and_be_cut() -> None:
    assert ask(stop=["Start"], max_output_tokens=2)[1].finish_reason == "length"
    assert ask(stop=["Here"], max_output_tokens=2)[1].finish_reason == "stop"


# Conversations


def test_instructions_and_earlier_messages_are_referred_to() -> None:
    earlier = [{"role": "user", "content": "I am Zebedee."}, {"role": "assistant", "content": "Hello!"}]
    text, _ = ask("What is my name?", messages=earlier, instructions="Be brief.")
    assert text.startswith(SimulatedGenerator.answer("What is my name?"))
    assert "2 earlier messages; you last said “I am Zebedee.”" in text
    assert "My instructions are “Be brief.”" in text


@pytest.mark.parametrize(("count", "said"), [(1, "I was sent 1 image."), (2, "I was sent 2 images.")])
def test_images_are_accepted_and_counted(count: int, said: str) -> None:
    parts = [{"type": "text", "text": "What is this?"}, *([IMAGE] * count)]
    text, _ = ask("What is this?", input=[{"role": "user", "content": parts}])
    assert said in text


# Formats


def test_json_object_makes_the_answer_a_json_object() -> None:
    text, _ = ask(response_format={"type": "json_object"})
    assert json.loads(text) == {"answer": SimulatedGenerator.answer("Explain tides")}


def test_json_schema_makes_the_answer_a_valid_instance() -> None:
    text, usage = ask(response_format=FORMAT)
    assert validate(json.loads(text), SCHEMA) is None
    assert (usage.finish_reason, ask(response_format=FORMAT)[0]) == ("stop", text)


def test_an_instance_is_cut_by_its_limit_of_tokens_like_any_answer() -> None:
    text, usage = ask(response_format=FORMAT, max_output_tokens=2)
    assert (len(text), usage.finish_reason) == (8, "length")


def test_a_schema_without_instances_is_an_error_that_another_attempt_cannot_help() -> None:
    with pytest.raises(ProviderError, match="no valid answer for this JSON schema") as raised:
        ask(response_format={"type": "json_schema", "json_schema": {"name": "none", "schema": {"not": {}}}})
    assert not raised.value.retryable


# Tools


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("Call get_weather for Paris", ["get_weather"]),
        ("What is the weather in Paris?", ["get_weather"]),
        ("How much rain will this city have?", ["get_weather"]),
        ("Please send Ada a mail about the weather", ["get_weather", "sendMail"]),
        ("Explain tides", []),
        ("Tell me the name of a person", []),
    ],
)
def test_a_tool_that_the_text_asks_for_is_called_with_valid_arguments(prompt: str, names: list[str]) -> None:
    text, usage = ask(prompt, tools=[WEATHER, MAIL])
    assert [name for name, _ in called(usage)] == names
    for name, arguments in called(usage):
        assert validate(arguments, WEATHER["function"]["parameters"] if name == "get_weather" else {}) is None
    assert (usage.finish_reason, bool(text)) == (("tool_calls", False) if names else ("stop", True))


def test_calls_have_ids_that_are_the_same_for_each_attempt() -> None:
    ids = [[call["id"] for call in ask("weather and mail", tools=[WEATHER, MAIL])[1].tool_calls] for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 2


@pytest.mark.parametrize(
    ("choice", "prompt", "names"),
    [
        ("none", "What is the weather?", []),
        ("required", "Explain tides", ["get_weather"]),
        ("required", "Send a mail", ["sendMail"]),
        ({"type": "function", "function": {"name": "sendMail"}}, "What is the weather?", ["sendMail"]),
    ],
)
def test_tool_choice_is_obeyed(choice: Any, prompt: str, names: list[str]) -> None:
    assert [name for name, _ in called(ask(prompt, tools=[WEATHER, MAIL], tool_choice=choice)[1])] == names


def test_a_tool_choice_that_is_not_offered_is_an_error() -> None:
    with pytest.raises(ProviderError, match="no tool that tool_choice names"):
        ask(tools=[MAIL], tool_choice={"type": "function", "function": {"name": "nope"}})


def test_without_parallel_tool_calls_there_is_one() -> None:
    usage = ask("weather and mail", tools=[WEATHER, MAIL], parallel_tool_calls=False)[1]
    assert len(called(usage)) == 1


def test_after_the_result_of_a_tool_the_answer_is_a_text_that_quotes_it() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    result = {"role": "tool", "tool_call_id": "call_1", "content": "rain, 12 °C"}
    text, usage = ask("rain, 12 °C", messages=turns, input=[result], tools=[WEATHER])
    assert "returned “rain, 12 °C”" in text
    assert (usage.finish_reason, usage.tool_calls) == ("stop", None)


# Usage


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"instructions": "Be brief.", "messages": [{"role": "user", "content": "One?"}]},
        {"max_output_tokens": 3},
        {"stop": ["."]},
        {"response_format": FORMAT},
        {"tools": [WEATHER], "tool_choice": "required"},
        {"input": [{"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]}]},
    ],
    ids=str,
)
def test_the_usage_of_a_request_is_known_exactly_before_it_is_answered(asked: dict[str, Any]) -> None:
    _, usage = ask(**asked)
    assert SimulatedGenerator.usage_of(request(**asked)) == (usage.prompt_tokens, usage.completion_tokens)


def test_the_usage_counts_the_conversation_the_tools_and_their_calls() -> None:
    plain, more = ask("weather")[1], ask("weather", instructions="Be brief.", tools=[WEATHER])[1]
    assert (plain.prompt_tokens or 0) + 40 < (more.prompt_tokens or 0)
    assert (more.completion_tokens or 0) > 10


def test_the_history_is_not_read_so_it_uses_no_tokens() -> None:
    asked = GenerationRequest("Why?", history=[Exchange("a" * 99, "b" * 99)])
    assert list(SimulatedGenerator().generate(asked))[-1].prompt_tokens == 1  # type: ignore[union-attr]


def test_the_usage_of_a_schema_without_instances_is_that_of_the_prompt() -> None:
    none = {"type": "json_schema", "json_schema": {"name": "none", "schema": {"not": {}}}}
    assert SimulatedGenerator.usage_of(request(response_format=none))[1] == 0
