"""The body of a chat completion: every parameter is served or refused, and the conversation becomes a prompt."""

from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import ValidationError

from shared.db.models import FrontApi
from shared.openai.chat_request import ChatCompletionRequest, parse
from shared.openai.parsed import ParsedRequest
from shared.request_body import MAX_PROMPT_LENGTH
from tests.support.chat import WEATHER

QUESTION = {"role": "user", "content": "What is a tide?"}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/tide.png", "detail": "low"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Lisbon"}'}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"enum": [None, 1]}}}


def parsed(*messages: dict[str, Any], **fields: Any) -> ParsedRequest:
    return parse({"model": "default", "messages": list(messages) or [QUESTION]} | fields)


def refusal(**fields: Any) -> tuple[str, str]:
    """Where a body is refused, and why."""
    with pytest.raises(ValidationError) as raised:
        parse({"model": "default", "messages": [QUESTION]} | fields)
    (error, *_) = raised.value.errors()
    return ".".join(str(part) for part in error["loc"] if not str(part).startswith("~")), error["msg"]


def test_every_parameter_of_the_sdk_is_known() -> None:
    known = CompletionCreateParamsNonStreaming.__required_keys__ | CompletionCreateParamsNonStreaming.__optional_keys__
    assert known <= ChatCompletionRequest.model_fields.keys()


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"temperature": 0.5, "top_p": 1, "seed": 7}, {"temperature": 0.5, "top_p": 1, "seed": 7}),
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 5.0}, {"max_output_tokens": 5}),
        ({"stop": "."}, {"stop": ["."]}),
        ({"stop": [".", "!"]}, {"stop": [".", "!"]}),
        ({"frequency_penalty": -2, "presence_penalty": 2}, {"frequency_penalty": -2, "presence_penalty": 2}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        ({"response_format": SCHEMA}, {"response_format": SCHEMA}),
        ({"tools": [WEATHER]}, {"tools": [WEATHER]}),
        ({"tools": [WEATHER], "tool_choice": "required"}, {"tools": [WEATHER], "tool_choice": "required"}),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
            {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        ),
        (
            {"tools": [WEATHER], "parallel_tool_calls": False},
            {"tools": [WEATHER], "parallel_tool_calls": False},
        ),
    ],
)
def test_what_is_served_is_asked_of_the_model(fields: dict[str, Any], asked: dict[str, Any]) -> None:
    assert (parsed(**fields).asked.stored or {}) == asked


@pytest.mark.parametrize(
    "fields",
    [
        *({"n": 1}, {"logprobs": False}, {"top_logprobs": 0}, {"logit_bias": {}}, {"modalities": ["text"]}),
        *({"store": None}, {"store": True}, {"service_tier": "auto"}, {"service_tier": "default"}, {"verbosity": None}),
        *({"stream": False}, {"stream_options": {"include_usage": True, "include_obfuscation": False}}),
        *({"user": "u"}, {"safety_identifier": "u"}, {"prompt_cache_key": "k"}, {"tools": []}),
        *({"tool_choice": "auto"}, {"tool_choice": "none"}, {"parallel_tool_calls": True}),
        {name: None for name in ChatCompletionRequest.model_fields if name not in ("model", "messages")},
    ],
)
def test_what_asks_for_nothing_is_accepted(fields: dict[str, Any]) -> None:
    assert parsed(**fields).asked.stored is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("n", 2), ("logprobs", True), ("top_logprobs", 2), ("logit_bias", {"50256": -100})),
        *(("modalities", ["text", "audio"]), ("audio", {"voice": "x", "format": "wav"}), ("verbosity", "low")),
        *(("prediction", {"type": "content", "content": "x"}), ("web_search_options", {}), ("functions", [{}])),
        *(("function_call", "auto"), ("service_tier", "flex"), ("prompt_cache_retention", "24h"), ("moderation", {})),
        *(("temperature", 2.1), ("temperature", "1"), ("seed", 2**63), ("stop", ["a"] * 5), ("stop", [])),
        *(("max_tokens", 0), ("tools", [{"type": "custom", "custom": {"name": "x"}}]), ("best_of", 2)),
        *(("metadata", {"k": 1}), ("metadata", {"k" * 65: "v"}), ("metadata", {"k": "v" * 513})),
        *(("metadata", {str(i): "" for i in range(17)}), ("response_format", {"type": "xml"}), ("user", "\0")),
        *(("tools", [{"type": "function", "function": {"name": "f", "parameters": {"a\0": 1}}}]), ("model", None)),
        *(("messages", []), ("messages", [{"role": "bot", "content": "x"}]), ("messages", [{**QUESTION, "x": 1}])),
        ("messages", [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]),
        ("messages", [{"role": "system", "content": "There is no question."}]),
        ("messages", [{"role": "user", "content": " \n"}]),
        ("messages", [{"role": "user", "content": "x" * (MAX_PROMPT_LENGTH + 1)}]),
        ("stream_options", {"include_obfuscation": True}),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": {"maximum": float("inf")}}}]),
    ],
)
def test_what_is_not_served_is_refused_with_its_name(name: str, value: object) -> None:
    where, _ = refusal(**{name: value})
    assert where.partition(".")[0] == name


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tool_choice": "required"}, "needs tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "names f"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "new name of max_tokens"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused_with_their_names(fields: dict[str, Any], says: str) -> None:
    assert says in refusal(**fields)[1]


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": "user", "content": [{"type": "text"}]}, "messages.0.content.0.text"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages.0.content.0.image_url.url"),
        ({"role": "tool", "content": "18"}, "messages.0.tool_call_id"),
        ({"role": "user", "content": 3}, "messages.0.content"),
    ],
)
def test_an_error_names_the_field_and_not_the_kind_of_message(message: dict[str, Any], where: str) -> None:
    assert refusal(messages=[message])[0] == where


SYSTEM = {"role": "system", "content": "Be brief."}
ANSWER = {"role": "assistant", "content": "A rise of the sea."}
CALLING = {"role": "assistant", "tool_calls": [CALL]}
RESULTS = [{"role": "tool", "tool_call_id": f"c{i}", "content": f"{i} °C"} for i in (1, 2)]
WITH_IMAGE = {"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]}
ONLY_IMAGE = {"role": "user", "content": [IMAGE]}
TEXTS = {"role": "user", "content": [{"type": "text", "text": "What is"}, {"type": "text", "text": "a tide?"}]}
NAMED = QUESTION | {"name": "alice"}


@pytest.mark.parametrize(
    ("messages", "prompt_text", "before", "own"),
    [
        ([QUESTION], "What is a tide?", [], []),
        ([SYSTEM, QUESTION, ANSWER, QUESTION], "What is a tide?", [SYSTEM, QUESTION, ANSWER], []),
        ([TEXTS], "What is\na tide?", [], []),
        ([NAMED], "What is a tide?", [], [NAMED]),
        ([SYSTEM, WITH_IMAGE], "What is this?", [SYSTEM], [WITH_IMAGE]),
        ([ONLY_IMAGE], "[image]", [], [ONLY_IMAGE]),
        ([QUESTION, CALLING, *RESULTS], "1 °C\n2 °C", [QUESTION, CALLING], RESULTS),
        ([QUESTION, CALLING, RESULTS[0] | {"content": ""}], "[tool result]", [QUESTION, CALLING], None),
        ([QUESTION, SYSTEM], "What is a tide?", [], [QUESTION, SYSTEM]),
        ([SYSTEM, QUESTION, ANSWER], "What is a tide?", [SYSTEM], [QUESTION, ANSWER]),
    ],
)
def test_the_prompt_is_the_last_message_of_the_user_or_the_results_of_tools(
    messages: list[dict], prompt_text: str, before: list[dict], own: list[dict] | None
) -> None:
    found = parsed(*messages)
    assert found.prompt_text == prompt_text
    assert found.asked.messages == before
    assert own is None or found.asked.input == own
    if TEXTS not in messages:
        assert found.asked.conversation(found.prompt_text) == messages


def test_a_message_of_an_answer_can_be_sent_back_as_it_is() -> None:
    shown = {"role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None}
    found = parsed(QUESTION, shown | {"function_call": None, "tool_calls": [CALL]}, RESULTS[0])
    assert found.asked.messages[1] == CALLING


def test_the_text_of_long_results_is_cut_and_the_model_gets_all_of_it() -> None:
    result = RESULTS[0] | {"content": "x" * (MAX_PROMPT_LENGTH + 1)}
    found = parsed(QUESTION, CALLING, result)
    assert len(found.prompt_text) == MAX_PROMPT_LENGTH
    assert found.asked.input == [result]


def test_the_prompt_has_the_model_the_metadata_and_the_api() -> None:
    found = parsed(metadata={"topic": "sea"})
    assert (found.model, found.metadata, found.api) == ("default", {"topic": "sea"}, FrontApi.CHAT_COMPLETIONS)


def test_messages_may_have_what_sdks_and_other_clients_add_to_them() -> None:
    call = CALL | {"function": CALL["function"] | {"parsed_arguments": {"city": "Lisbon"}}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call], "parsed": {"a": 1}, "annotations": []}
    result = {"role": "tool", "tool_call_id": "c1", "name": "get_weather", "content": "18"}  # LiteLLM sends the name
    asked = parsed(QUESTION, answer, result).asked
    assert asked.messages[1] == {"role": "assistant", "tool_calls": [CALL]}
    assert asked.input == [result]
