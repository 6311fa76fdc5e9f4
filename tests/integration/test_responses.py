"""`/v1/responses`: what it answers, keeps and refuses. Every resource is valid against Open Responses 2026-04-24."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from api.openai import answers
from shared.db.engine import Sessions
from shared.errors import ProviderError
from shared.prompts import retention
from shared.providers.model_request import Capability
from tests.support import openresponses
from tests.support.chat import assert_error
from tests.support.client import ApiUser
from tests.support.openresponses import assert_resource
from tests.support.providers import Script
from tests.support.responses import PATH, WEATHER, create, queue
from tests.support.worker_threads import answering
from worker.maintenance.unstored import KEPT_FOR, UnstoredPrompts
from worker.pipeline import Pipeline

PIXEL = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {
    "type": "object",
    "properties": {"height": {"type": "number"}},
    "required": ["height"],
    "additionalProperties": False,
}


@pytest.fixture
def working(worker: Pipeline) -> Iterator[None]:
    with answering(worker):
        yield


def text_of(resource: dict[str, Any]) -> str:
    (item,) = resource["output"]
    return item["content"][0]["text"]


#: The HTTP cases of Open Responses' compliance list.
COMPLIANCE: dict[str, dict[str, Any]] = {
    "basic": {"input": [{"type": "message", "role": "user", "content": "Say hello in exactly 3 words."}]},
    "system prompt": {
        "input": [
            {"type": "message", "role": "system", "content": "You are a pirate. Always respond in pirate speak."},
            {"type": "message", "role": "user", "content": "Say hello."},
        ]
    },
    "tool call": {
        "input": [{"type": "message", "role": "user", "content": "What's the weather like in San Francisco?"}],
        "tools": [WEATHER],
    },
    "image input": {
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What do you see in this image? Answer in one sentence."},
                    {"type": "input_image", "image_url": PIXEL},
                ],
            }
        ]
    },
    "multi-turn": {
        "input": [
            {"type": "message", "role": "user", "content": "My name is Alice."},
            {"type": "message", "role": "assistant", "content": "Hello Alice! Nice to meet you. How can I help?"},
            {"type": "message", "role": "user", "content": "What is my name?"},
        ]
    },
    "assistant phases": {
        "input": [
            {"type": "message", "role": "user", "content": "Look up the tide."},
            {
                "type": "message",
                "role": "assistant",
                "phase": "commentary",
                "content": [{"type": "output_text", "text": "I look."}],
            },
            {"type": "message", "role": "assistant", "phase": "final_answer", "content": "High tide is at noon."},
            {"type": "message", "role": "user", "content": "And low tide?"},
        ]
    },
}


@pytest.mark.parametrize("case", COMPLIANCE)
@pytest.mark.usefixtures("working")
def test_open_responses_compliance(alice: ApiUser, case: str) -> None:
    resource = assert_resource(create(alice, COMPLIANCE[case]["input"], **_others(case)))
    assert resource["status"] == "completed"
    kinds = [item["type"] for item in resource["output"]]
    assert kinds == (["function_call"] if case == "tool call" else ["message"])


@pytest.mark.parametrize("case", COMPLIANCE)
@pytest.mark.usefixtures("working")
def test_open_responses_compliance_as_a_stream(alice: ApiUser, case: str) -> None:
    streamed = create(alice, COMPLIANCE[case]["input"], **_others(case), stream=True)
    events = openresponses.parse_events(streamed.text)
    assert events[-1]["type"] == "response.completed"
    (last,) = [item["item"] for item in events if item["type"] == "response.output_item.done"]
    assert events[-1]["response"]["output"] == [last]


def _others(case: str) -> dict[str, Any]:
    return {name: value for name, value in COMPLIANCE[case].items() if name != "input"}


@pytest.mark.usefixtures("working")
def test_a_response_is_a_prompt_in_the_list_with_its_metadata(alice: ApiUser) -> None:
    resource = assert_resource(create(alice, "Explain tides", metadata={"project": "sea"}))
    (prompt,) = alice.get("/prompts/").json
    assert resource["id"] == f"resp_{prompt['id']}"
    assert resource["metadata"] == prompt["metadata"] == {"project": "sea"}
    assert text_of(resource) == prompt["response_text"]
    assert prompt["websocket"]


def test_a_background_response_is_queued_and_found_completed_later(alice: ApiUser, worker: Pipeline) -> None:
    response = create(alice, background=True)
    assert assert_resource(response)["status"] == "queued"
    path = f"{PATH}/{response.json['id']}"
    assert assert_resource(alice.get(path)) == response.json
    worker.process(1)
    resource = assert_resource(alice.get(path))
    assert resource["status"] == "completed"
    assert resource["background"]
    assert resource["usage"]["total_tokens"] > 0
    assert resource["completed_at"] >= resource["created_at"]


REPEATED: list[tuple[str, Any]] = [
    ("instructions", "Be brief."),
    ("temperature", 0.5),
    ("top_p", 0.5),
    ("presence_penalty", 0.5),
    ("frequency_penalty", 0.5),
    ("max_output_tokens", 64),
    ("max_tool_calls", 3),
    ("metadata", {"a": "b"}),
    ("user", "u-1"),
    ("safety_identifier", "s-1"),
    ("prompt_cache_key", "k-1"),
    ("tools", [WEATHER]),
    ("text", {"format": {"type": "json_object"}}),
]


@pytest.mark.parametrize(("name", "value"), REPEATED)
def test_the_resource_repeats_a_parameter(shared_alice: ApiUser, name: str, value: Any) -> None:
    response = create(shared_alice, background=True, **{name: value})
    assert assert_resource(response)[name] == value
    assert assert_resource(shared_alice.get(f"{PATH}/{response.json['id']}"))[name] == value


@pytest.mark.parametrize(
    "choice",
    [
        *("auto", "none", "required"),
        {"type": "function", "name": "get_weather"},
        {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_weather"}]},
    ],
)
def test_the_resource_repeats_the_choice_of_a_tool(shared_alice: ApiUser, choice: Any) -> None:
    response = create(shared_alice, background=True, tools=[WEATHER, WEATHER | {"name": "other"}], tool_choice=choice)
    resource = assert_resource(shared_alice.get(f"{PATH}/{response.json['id']}"))
    assert resource["tool_choice"] == choice
    assert [tool["name"] for tool in resource["tools"]] == ["get_weather", "other"]


@pytest.mark.usefixtures("working")
def test_only_allowed_tools_reach_the_model(alice: ApiUser) -> None:
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]}
    resource = assert_resource(create(alice, tools=[WEATHER, WEATHER | {"name": "other"}], tool_choice=allowed))
    assert [item["name"] for item in resource["output"]] == ["other"]


@pytest.mark.usefixtures("working")
def test_text_format_json_schema_makes_an_answer_that_is_valid_against_it(alice: ApiUser) -> None:
    wanted = {"type": "json_schema", "name": "tide", "schema": SCHEMA, "strict": True}
    resource = assert_resource(create(alice, text={"format": wanted}))
    assert text_of(resource).startswith('{"height": ')
    assert resource["text"]["format"] == wanted | {"description": None, "schema": None}


@pytest.mark.usefixtures("working")
def test_an_answer_cut_by_max_output_tokens_is_incomplete_and_says_so(alice: ApiUser) -> None:
    resource = assert_resource(create(alice, "Explain what causes ocean tides", max_output_tokens=16))
    assert resource["status"] == resource["output"][0]["status"] == "incomplete"
    assert resource["incomplete_details"] == {"reason": "max_output_tokens"}


#: Parameters that are not served, each with the name that the error has.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"truncation": "auto"}, "truncation"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"include": ["message.output_text.logprobs"]}, "include"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"text": {"verbosity": "high"}}, "text.verbosity"),
    ({"reasoning": {"summary": "auto"}}, "reasoning.summary"),
    ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"max_output_tokens": 15}, "max_output_tokens"),
    ({"temperature": 3}, "temperature"),
    ({"metadata": {"k": 1}}, "metadata.k"),
    ({"model": "none"}, "model"),
    ({"frobnicate": 1}, "frobnicate"),
    ({"input": [{"type": "item_reference", "id": ""}]}, "input[0].id"),
    ({"store": False, "background": True}, "store"),
    ({"stream_options": {"include_obfuscation": False}}, "stream_options"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "f"}}, "tool_choice"),
    ({"input": [{"type": "reasoning", "summary": []}]}, "input[0]"),
    ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]}, "input[0].content[0]"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].image_url",
    ),
    ({"input": []}, "input"),
    ({"input": " "}, "input"),
    ({"input": "a\0b"}, "input"),
    ({"input": None}, "input"),
    ({"input": [{"role": "assistant", "content": "only that"}]}, "input"),
    ({"input": "x" * 100_001}, "input"),
]


@pytest.mark.parametrize(("fields", "name"), REFUSED, ids=[f"{i}-{name}" for i, (_, name) in enumerate(REFUSED)])
def test_a_parameter_that_is_not_served_is_400_with_its_name(
    shared_alice: ApiUser, fields: dict[str, Any], name: str
) -> None:
    error = assert_error(shared_alice.post(PATH, json={"input": "Hi"} | fields), 400)
    assert error["param"] == name
    assert error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "fields",
    [
        {"background": True, "store": False},
        {"tool_choice": "required"},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "unknown"}},
        {"stream_options": {"include_obfuscation": False}},
    ],
)
def test_parameters_that_contradict_each_other_are_400(shared_alice: ApiUser, fields: dict[str, Any]) -> None:
    assert_error(shared_alice.post(PATH, json={"input": "Hi"} | fields), 400)


def test_what_the_routes_model_cannot_do_is_400(make_app: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.prompts.model_choice.capabilities", lambda settings: frozenset({Capability.MESSAGES}))
    error = assert_error(create(ApiUser(make_app()[0], "alice"), tools=[WEATHER]), 400)
    assert error["param"] == "tools"


@pytest.mark.usefixtures("working")
def test_previous_response_id_continues_the_conversation(alice: ApiUser) -> None:
    first = assert_resource(create(alice, "My name is Ada", instructions="Rhyme."))
    second = assert_resource(create(alice, "What is my name?", previous_response_id=first["id"]))
    assert second["previous_response_id"] == first["id"]
    assert "I read 2 earlier messages; you last said “My name is Ada”" in text_of(second)
    third = assert_resource(create(alice, "And now?", previous_response_id=second["id"]))
    assert "I read 4 earlier messages; you last said “What is my name?”" in text_of(third)
    assert "My instructions" not in text_of(third)


@pytest.mark.usefixtures("working")
def test_the_result_of_a_function_continues_the_response_that_called_it(alice: ApiUser) -> None:
    first = assert_resource(create(alice, "What is the weather in Lisbon?", tools=[WEATHER]))
    (call,) = first["output"]
    assert call["name"] == "get_weather"
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "18 degrees"}
    second = assert_resource(create(alice, [result], previous_response_id=first["id"], tools=[WEATHER]))
    assert "The tool get_weather returned “18 degrees”" in text_of(second)


@pytest.mark.usefixtures("working")
def test_the_output_of_a_response_is_input_of_the_next_one_as_it_is(alice: ApiUser) -> None:
    question = {"role": "user", "content": "What is the weather in Lisbon?"}
    output = assert_resource(create(alice, [question], tools=[WEATHER]))["output"]
    result = {"type": "function_call_output", "call_id": output[0]["call_id"], "output": "18 degrees"}
    answer = assert_resource(create(alice, [question, *output, result], tools=[WEATHER]))
    assert "The tool get_weather returned “18 degrees”" in text_of(answer)
    assert_resource(create(alice, [question, *output, result, *answer["output"], question | {"content": "Thanks"}]))


@pytest.mark.usefixtures("working")
def test_a_deleted_predecessor_is_404_that_says_so_and_the_conversation_goes_on_from_its_successor(
    alice: ApiUser,
) -> None:
    first = create(alice, "My name is Ada").json["id"]
    second = create(alice, "Hello", previous_response_id=first).json["id"]
    assert alice.delete(f"{PATH}/{first}").status_code == 200
    error = assert_error(create(alice, previous_response_id=first), 404)
    assert f"There is no response {first}. It may have been deleted." in error["message"]
    third = assert_resource(create(alice, "What is my name?", previous_response_id=second))
    assert "I read 4 earlier messages" in text_of(third)


@pytest.mark.usefixtures("working")
def test_items_of_earlier_responses_may_be_referred_to(alice: ApiUser) -> None:
    first = create(alice, "My name is Ada").json
    asked = create(alice, "What is the weather in Lisbon?", tools=[WEATHER]).json
    (message,), (call,) = first["output"], asked["output"]
    given = [
        {"role": "user", "content": "My name is Ada"},
        {"type": "item_reference", "id": message["id"]},
        {"role": "user", "content": "What is the weather in Lisbon?"},
        {"id": call["id"]},  # the type may be left out
        {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"},
    ]
    third = assert_resource(create(alice, given))
    assert "The tool get_weather returned “sunny”." in text_of(third)
    items = alice.get(f"{PATH}/{third['id']}/input_items?order=asc").json["data"]
    assert [item["type"] for item in items] == [
        *("message", "message", "message", "function_call", "function_call_output")
    ]
    assert items[1]["content"] == message["content"]


@pytest.mark.usefixtures("working")
def test_an_item_that_is_not_there_is_404_with_its_name(alice: ApiUser, bob: ApiUser) -> None:
    response = create(alice, "Hello").json
    others = create(bob, "Hello").json["output"][0]["id"]
    unstored = create(alice, "Hello", store=False).json["output"][0]["id"]
    own = response["output"][0]["id"]
    for missing in (
        others,
        unstored,
        f"{own}_2",
        own.replace("msg_", "fc_") + "_1",
        "msg_0",
        "msg_" + "9" * 30,
        "rs_1",
        "x",
    ):
        given = [{"type": "item_reference", "id": each} for each in (own, missing)]
        error = assert_error(create(alice, [*given, {"role": "user", "content": "Hi"}]), 404)
        assert f"There is no item {missing}." in error["message"]
    alice.delete(f"{PATH}/{response['id']}")
    given = [{"type": "item_reference", "id": own}, {"role": "user", "content": "Hi"}]
    assert_error(create(alice, given), 404)


@pytest.mark.usefixtures("working")
def test_what_sdks_add_when_they_parse_an_answer_is_left_out(alice: ApiUser) -> None:
    part = {"type": "output_text", "text": "{}", "annotations": [], "parsed": {"a": 1}}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "parsed_arguments": {}}
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}
    given = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [part]}, call, output]
    response_id = assert_resource(create(alice, given))["id"]
    assert "parsed" not in alice.get(f"{PATH}/{response_id}/input_items").text


def test_the_response_of_another_user_does_not_exist(alice: ApiUser, bob: ApiUser, worker: Pipeline) -> None:
    response_id = queue(alice)
    worker.process(1)
    assert assert_error(create(bob, previous_response_id=response_id), 404)["message"] == assert_error(
        create(bob, previous_response_id="resp_999999"), 404
    )["message"].replace("resp_999999", response_id)
    for method, path in (("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")):
        assert_error(bob.call(method, f"{PATH}/{response_id}{path}"), 404)


def test_a_predecessor_that_has_not_ended_is_400(alice: ApiUser) -> None:
    error = assert_error(create(alice, previous_response_id=queue(alice)), 400)
    assert error["param"] == "previous_response_id"
    assert "queued" in error["message"]


@pytest.mark.parametrize("response_id", ["resp_0", "resp_x", "1", "chatcmpl-1", f"resp_{2**63}"])
def test_what_is_no_id_of_a_response_is_404(shared_alice: ApiUser, response_id: str) -> None:
    assert_error(shared_alice.get(f"{PATH}/{response_id}"), 404)


def test_a_prompt_of_another_api_is_no_response(alice: ApiUser) -> None:
    assert_error(alice.get(f"{PATH}/resp_{alice.submit()}"), 404)


def test_cancelling_is_idempotent_and_for_good(alice: ApiUser, worker: Pipeline) -> None:
    path = f"{PATH}/{queue(alice)}"
    first = assert_resource(alice.post(f"{path}/cancel"))
    assert first["status"] == "cancelled"
    assert assert_resource(alice.post(f"{path}/cancel")) == first
    worker.process(1)
    assert assert_resource(alice.get(path)) == first


def test_cancelling_what_has_ended_changes_nothing(alice: ApiUser, worker: Pipeline) -> None:
    path = f"{PATH}/{queue(alice)}"
    worker.process(1)
    completed = assert_resource(alice.get(path))
    assert assert_resource(alice.post(f"{path}/cancel")) == completed


def test_a_deleted_response_is_404(alice: ApiUser) -> None:
    response_id = queue(alice)
    path = f"{PATH}/{response_id}"
    assert alice.delete(path).json == {"id": response_id, "object": "response", "deleted": True}
    for method, suffix in (("DELETE", ""), ("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel")):
        assert_error(alice.call(method, path + suffix), 404)
    assert alice.get("/prompts/").json == []


def test_input_items_are_paged_in_both_orders(alice: ApiUser) -> None:
    messages = [{"role": "user", "content": f"message {number}"} for number in range(5)]
    path = f"{PATH}/{queue(alice, messages)}/input_items"
    for order in ("asc", "desc"):
        found, after, has_more = [], "", True
        while has_more:
            page = alice.get(f"{path}?limit=2&order={order}{after}").json
            assert [page["first_id"], page["last_id"]] == [page["data"][0]["id"], page["data"][-1]["id"]]
            found += [openresponses.assert_valid("ItemField", item)["content"][0]["text"] for item in page["data"]]
            after, has_more = f"&after={page['last_id']}", page["has_more"]
        expected = [message["content"] for message in messages]
        assert found == (expected if order == "asc" else expected[::-1])
    assert alice.get(path).json["data"][0]["content"][0]["text"] == "message 4"


def test_input_items_keep_images_phases_and_calls(alice: ApiUser) -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    given = [
        *COMPLIANCE["image input"]["input"],
        *COMPLIANCE["assistant phases"]["input"],
        *(call, {"type": "function_call_output", "call_id": "c", "output": "done"}),
    ]
    items = alice.get(f"{PATH}/{queue(alice, given)}/input_items?order=asc").json["data"]
    for item in items:
        openresponses.assert_valid("ItemField", item)
    assert items[0]["content"][1]["image_url"] == PIXEL
    assert [item.get("phase") for item in items[1:5]] == [None, "commentary", "final_answer", None]
    assert [item["type"] for item in items[5:]] == ["function_call", "function_call_output"]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "order=up", "after=in_9_9", "frobnicate=1"])
def test_a_wrong_page_of_input_items_is_400(alice: ApiUser, query: str) -> None:
    error = assert_error(alice.get(f"{PATH}/{queue(alice)}/input_items?{query}"), 400)
    assert error["param"] == query.partition("=")[0]


@pytest.mark.usefixtures("working")
def test_the_same_idempotency_key_makes_one_response(alice: ApiUser) -> None:
    body, headers = {"input": "Hi"}, {"Idempotency-Key": "k"}
    first = alice.post(PATH, json=body, headers=headers)
    again = alice.post(PATH, json=body | {"stream": True}, headers=headers)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert openresponses.parse_events(again.text)[-1]["response"] == assert_resource(first)
    assert_error(alice.post(PATH, json={"input": "Other"}, headers=headers), 422)
    assert len(alice.get("/prompts/").json) == 1


def test_a_failed_prompt_is_an_error_in_the_foreground_and_a_failed_response_in_the_background(
    alice: ApiUser, worker: Pipeline
) -> None:
    failing = replace(worker, generator=Script(ProviderError("The model refused it.", retryable=False)))
    response_id = queue(alice)
    with answering(failing):
        response = create(alice)
    error = assert_error(response, 500)
    assert "The model refused it." in error["message"]
    assert error["code"] == "prompt_failed"
    assert response.headers["x-should-retry"] == "false"
    failed = assert_resource(alice.get(f"{PATH}/{response_id}"))
    assert failed["status"] == "failed"
    assert failed["error"] == {"code": "server_error", "message": "The model refused it."}
    assert failed["output"] == []


def test_a_response_that_takes_too_long_is_504_and_found_later(
    alice: ApiUser, worker: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_SYNC_WAIT_SECONDS", 0.05)
    error = assert_error(create(alice), 504)
    worker.process(1)
    (path,) = [word.rstrip(".") for word in error["message"].split() if word.startswith(PATH)]
    assert assert_resource(alice.get(path))["status"] == "completed"


def test_waiting_and_streaming_responses_count_as_waits_of_the_user(make_app: Callable[..., Any]) -> None:
    alice = ApiUser(make_app(user_wait_limit=0)[0], "alice")
    response_id = queue(alice)
    for response in (create(alice), create(alice, stream=True), alice.get(f"{PATH}/{response_id}?stream=true")):
        assert assert_error(response, 429)["code"] == "user_limit"
    assert len(alice.get("/prompts/").json) == 1


def test_a_key_of_another_model_makes_no_response(alice: ApiUser) -> None:
    key = alice.with_key(scopes=["prompts:read", "prompts:write"], models=["default"])
    assert create(key, background=True).status_code == 200


def test_responses_have_both_forms_of_their_paths(shared_app: Flask, shared_alice: ApiUser) -> None:
    assert_error(shared_alice.post(f"{PATH}/", json={}), 400)
    assert_error(shared_alice.get(f"{PATH}/resp_999999/input_items/"), 404)


@pytest.fixture
def unstored(worker: Pipeline) -> UnstoredPrompts:
    return UnstoredPrompts(worker.sessions, worker.announcer)


def grow_old(sessions: Sessions) -> None:
    with sessions.begin() as session:
        session.execute(
            text("UPDATE prompts SET completed_at = completed_at - CAST(:age AS interval)"), {"age": KEPT_FOR}
        )


@pytest.mark.usefixtures("working")
def test_an_unstored_response_is_404_at_once_and_continues_nothing(alice: ApiUser) -> None:
    resource = assert_resource(create(alice, store=False))
    assert resource["store"] is False
    path = f"{PATH}/{resource['id']}"
    for method, suffix in (("GET", ""), ("GET", "?stream=true"), ("GET", "/input_items"), ("DELETE", "")):
        assert_error(alice.call(method, path + suffix), 404)
    assert_error(create(alice, previous_response_id=resource["id"]), 404)


@pytest.mark.usefixtures("working")
def test_an_unstored_response_is_deleted_some_minutes_after_its_end(
    alice: ApiUser, unstored: UnstoredPrompts, sessions: Sessions
) -> None:
    headers = {"Idempotency-Key": "k"}
    resource = assert_resource(alice.post(PATH, json={"input": "secret", "store": False}, headers=headers))
    kept = create(alice, "kept").json["id"]
    unstored.round()
    assert alice.post(PATH, json={"input": "secret", "store": False}, headers=headers).json == resource
    grow_old(sessions)
    unstored.round()
    assert [prompt["prompt_text"] for prompt in alice.get("/prompts/").json] == ["kept"]
    assert alice.get("/prompts/similar/?prompt=secret").json[0]["prompt_text"] == "kept"
    assert_resource(alice.get(f"{PATH}/{kept}"))


def test_an_unstored_response_that_has_not_ended_is_kept(
    alice: ApiUser, unstored: UnstoredPrompts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_SYNC_WAIT_SECONDS", 0.05)
    assert_error(create(alice, store=False), 504)
    unstored.round()
    assert len(alice.get("/prompts/").json) == 1


def test_the_texts_of_an_old_response_are_removed_with_it(alice: ApiUser, sessions: Sessions, worker: Pipeline) -> None:
    response_id = queue(alice)
    worker.process(1)
    with sessions.begin() as session:
        retention.empty_batch(session, timedelta(0), after=0)
    assert_error(alice.get(f"{PATH}/{response_id}"), 404)
