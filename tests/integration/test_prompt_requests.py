"""What `POST /prompts/` takes besides the text, and what the resource adds ("Prompts that say more")."""

import json
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

from shared.db.engine import Sessions
from shared.db.models import Prompt
from tests.support.client import ApiUser, assert_problem
from worker.pipeline import Pipeline

TIDES = "Explain what causes ocean tides"
SCHEMA = {
    "type": "object",
    "properties": {"zebra": {"type": "integer"}, "ant": {"type": "string"}},
    "required": ["ant"],
}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "animals", "schema": SCHEMA, "strict": True}}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is a tide?"},
    {"role": "assistant", "content": "The sea, rising and falling."},
]
#: A valid value for each field. Stored, it is the same.
FIELDS: dict[str, Any] = {
    "instructions": "Answer like a pirate.",
    "messages": TURNS,
    "temperature": 0.2,
    "top_p": 0.9,
    "max_output_tokens": 200,
    "stop": ["END", "\n\n"],
    "seed": -7,
    "response_format": JSON_SCHEMA,
    "tools": [TOOL],
    "tool_choice": "none",
}


def submit(user: ApiUser, **fields: Any) -> Any:
    return user.post("/prompts/", json={"prompt_text": TIDES, **fields})


def ask(user: ApiUser, worker: Pipeline, **fields: Any) -> dict[str, Any]:
    """Submit a prompt, have the worker answer it, and return it."""
    response = submit(user, **fields)
    assert response.status_code == 202, response.text
    worker.process(1)
    return user.show(response.json["id"])


class TestSubmission:
    @pytest.mark.parametrize("name", FIELDS)
    def test_a_prompt_shows_what_was_submitted(self, shared_alice: ApiUser, name: str) -> None:
        with_tools = {"tools": [TOOL]} if name == "tool_choice" else {}
        response = submit(shared_alice, **with_tools, **{name: FIELDS[name]})
        assert response.status_code == 202, response.text
        assert shared_alice.show(response.json["id"])["request"] == with_tools | {name: FIELDS[name]}

    def test_a_prompt_that_asks_for_nothing_else_shows_none(self, shared_alice: ApiUser) -> None:
        prompt_id = submit(shared_alice, stop=None, metadata={}, response_format={"type": "text"}).json["id"]
        assert "request" not in shared_alice.show(prompt_id)

    @pytest.mark.parametrize(
        ("given", "stored"),
        [
            ({"stop": "END"}, {"stop": ["END"]}),
            ({"max_output_tokens": 4.0}, {"max_output_tokens": 4}),
            ({"tools": []}, None),
            ({"temperature": 0}, {"temperature": 0}),
        ],
    )
    def test_values_are_stored_in_one_form(self, shared_alice: ApiUser, given: dict, stored: dict | None) -> None:
        assert shared_alice.show(submit(shared_alice, **given).json["id"]).get("request") == stored

    def test_the_properties_of_a_schema_keep_their_order_in_which_models_write_them(
        self, shared_alice: ApiUser
    ) -> None:
        shown = shared_alice.show(submit(shared_alice, response_format=JSON_SCHEMA).json["id"])
        assert json.dumps(shown["request"]["response_format"]) == json.dumps(JSON_SCHEMA)

    def test_a_list_leaves_requests_out(self, alice: ApiUser) -> None:
        submit(alice, **FIELDS)
        assert "request" not in alice.get("/prompts/").json[0]

    def test_an_unknown_model_is_400_with_the_list(self, shared_alice: ApiUser) -> None:
        (error,) = assert_problem(submit(shared_alice, model="gpt-9"), 400)["errors"]
        assert error == {"field": "model", "message": "There is no model gpt-9. Known models: default."}

    def test_what_the_model_cannot_do_is_refused_with_400_never_ignored(self, make_app) -> None:
        app, _ = make_app(generator="tests.support.providers:Counting")
        user = ApiUser(app, "alice")
        for name, value in FIELDS.items():
            fields = {"tools": [TOOL]} if name == "tool_choice" else {}
            errors = assert_problem(submit(user, **fields, **{name: value}), 400)["errors"]
            assert {"does not support" in error["message"] for error in errors} == {True}
        assert user.get("/prompts/").json == []

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"model": 7}, "model"),
            ({"model": "x" * 201}, "model"),
            ({"instructions": "a\0b"}, "instructions"),
            ({"instructions": "x" * 100_001}, "instructions"),
            ({"messages": {}}, "messages"),
            ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages.0.role"),
            ({"messages": [{"role": "user", "content": ["Hi"]}]}, "messages.0.content"),
            ({"messages": [{"role": "user", "content": "a\0b"}]}, "messages.0.content"),
            ({"messages": [{"role": "user"}]}, "messages.0.content"),
            ({"messages": [{"role": "user", "content": "Hi", "name": "Al"}]}, "messages.0.name"),
            ({"messages": [TURNS[0]] * 501}, "messages"),
            ({"temperature": 2.1}, "temperature"),
            ({"temperature": True}, "temperature"),
            ({"temperature": "0.2"}, "temperature"),
            ({"top_p": -0.1}, "top_p"),
            ({"max_output_tokens": 0}, "max_output_tokens"),
            ({"max_output_tokens": 1.5}, "max_output_tokens"),
            ({"max_output_tokens": 1e300}, "max_output_tokens"),
            ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
            ({"stop": ""}, "stop.0"),
            ({"stop": 7}, "stop"),
            ({"stop": ["a\0b"]}, "stop.0"),
            ({"seed": 2**63}, "seed"),
            ({"response_format": "json"}, "response_format"),
            ({"response_format": {"type": "xml"}}, "response_format.type"),
            ({"response_format": {"type": "json_schema"}}, "response_format"),
            ({"response_format": JSON_SCHEMA | {"type": "json_object"}}, "response_format"),
            ({"response_format": JSON_SCHEMA | {"json_schema": {"name": "a b", "schema": {}}}},
             "response_format.json_schema.name"),
            ({"response_format": JSON_SCHEMA | {"json_schema": {"name": "a"}}}, "response_format.json_schema.schema"),
            ({"tools": [TOOL] * 129}, "tools"),
            ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
            ({"tools": [TOOL | {"function": {"name": "a\n"}}]}, "tools.0.function.name"),
            ({"tool_choice": "sometimes"}, "tool_choice"),
            ({"tool_choice": {"type": "function"}}, "tool_choice"),
            ({"tool_choice": "required"}, "tool_choice"),
            ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
            ({"metadata": {"k": 7}}, "metadata.k"),
            ({"metadata": {"k": "a\0b"}}, "metadata.k"),
            ({"metadata": {"k": "x" * 513}}, "metadata.k"),
            ({"metadata": {"x" * 65: "v"}}, "metadata." + "x" * 65 + ".[key]"),
            ({"metadata": {"": "v"}}, "metadata..[key]"),
            ({"metadata": {"a\0b": "v"}}, "metadata.a\0b.[key]"),
            ({"metadata": {f"k{i}": "v" for i in range(17)}}, "metadata"),
            ({"metadata": ["k"]}, "metadata"),
        ],
    )  # fmt: skip
    def test_an_invalid_field_is_400_and_named(self, shared_alice: ApiUser, fields: dict, field: str) -> None:
        errors = assert_problem(submit(shared_alice, **fields), 400)["errors"]
        assert field in [error["field"] for error in errors]

    @pytest.mark.parametrize(
        ("fields", "field"),
        [
            ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "strin"}}}},
             "response_format.json_schema.schema"),
            ({"tools": [TOOL | {"function": {"name": "a", "parameters": {"$ref": "http://127.0.0.1:1/"}}}]},
             "tools.0.function.parameters"),
            ({"tools": [TOOL | {"function": {"name": "a", "parameters": {"const": "a\0b"}}}]},
             "tools.0.function.parameters"),
        ],
    )  # fmt: skip
    def test_a_schema_that_is_not_valid_json_schema_is_400_and_named(
        self, shared_alice: ApiUser, fields: dict, field: str
    ) -> None:
        (error,) = assert_problem(submit(shared_alice, **fields), 400)["errors"]
        assert error["field"] == field
        assert error["message"].startswith("must be a valid JSON Schema: ")

    def test_a_lone_surrogate_is_400(self, shared_alice: ApiUser) -> None:
        body = '{"prompt_text": "Hi", "metadata": {"k": "\\ud800"}}'
        assert_problem(shared_alice.post("/prompts/", data=body, content_type="application/json"), 400)


class TestResource:
    def test_metadata_of_16_pairs_of_64_and_512_characters_is_shown_everywhere(
        self, alice: ApiUser, worker: Pipeline
    ) -> None:
        metadata = {f"{i:02}" + "ü" * 62: "漢" * 512 for i in range(16)}
        response = submit(alice, metadata=metadata, websocket=True)
        assert response.json["metadata"] == metadata
        worker.process(1)
        assert alice.show(response.json["id"])["metadata"] == metadata
        assert alice.get("/prompts/").json[0]["metadata"] == metadata

    def test_an_answer_cut_by_length_is_completed_and_says_so(self, alice: ApiUser, worker: Pipeline) -> None:
        shown = ask(alice, worker, max_output_tokens=3)
        assert (shown["status"], shown["finish_reason"]) == ("completed", "length")

    def test_an_answer_by_a_json_schema_is_valid(self, alice: ApiUser, worker: Pipeline) -> None:
        shown = ask(alice, worker, response_format=JSON_SCHEMA)
        assert shown["finish_reason"] == "stop"
        assert isinstance(json.loads(shown["response_text"])["ant"], str)

    def test_an_answer_that_calls_a_tool_is_completed_and_has_no_text(self, alice: ApiUser, worker: Pipeline) -> None:
        shown = ask(alice, worker, tools=[TOOL], tool_choice="required")
        assert (shown["status"], shown["finish_reason"], shown["response_text"]) == ("completed", "tool_calls", "")
        assert [call["function"]["name"] for call in shown["tool_calls"]] == ["get_weather"]
        (listed,) = alice.get("/prompts/").json
        assert listed["tool_calls"] == shown["tool_calls"]
        found = alice.get("/prompts/similar/", query_string={"prompt": TIDES}).json
        assert [prompt["response_text"] for prompt in found] == [""]

    def test_the_model_reads_instructions_and_earlier_turns(self, alice: ApiUser, worker: Pipeline) -> None:
        answer = ask(alice, worker, messages=TURNS, instructions="Answer like a pirate.")["response_text"]
        assert "What is a tide?" in answer
        assert "Answer like a pirate." in answer


class TestLifecycle:
    def test_a_retry_keeps_the_request(self, alice: ApiUser, worker: Pipeline) -> None:
        prompt_id = submit(alice, **FIELDS, metadata={"k": "v"}).json["id"]
        alice.post(f"/prompts/{prompt_id}/cancel/")
        assert alice.post(f"/prompts/{prompt_id}/retry/").status_code == 202
        shown = alice.show(prompt_id)
        assert (shown["request"], shown["metadata"]) == (FIELDS, {"k": "v"})
        worker.process(1)
        assert json.loads(alice.show(prompt_id)["response_text"])

    def test_the_export_has_the_request_the_metadata_and_the_tool_calls(self, alice: ApiUser, worker: Pipeline) -> None:
        fields = FIELDS | {"tool_choice": "required"}
        shown = ask(alice, worker, **fields, metadata={"k": "v"})
        exported = json.loads(alice.get("/account/export/").data)
        assert (exported["request"], exported["metadata"]) == (fields, {"k": "v"})
        assert exported["tool_calls"] == shown["tool_calls"] != None  # noqa: E711

    def test_a_deleted_prompt_leaves_nothing_of_its_request(self, alice: ApiUser, sessions: Sessions) -> None:
        prompt_id = submit(alice, **FIELDS).json["id"]
        alice.delete(f"/prompts/{prompt_id}/")
        with sessions() as session:
            assert session.scalars(select(Prompt.request)).all() == []

    @pytest.mark.parametrize("changed", [*FIELDS, "metadata", "model"])
    def test_the_same_idempotency_key_with_another_request_is_422(self, shared_alice: ApiUser, changed: str) -> None:
        values = FIELDS | {"metadata": {"k": "v"}, "model": "default"}
        fields = {changed: values[changed]} | ({"tools": [TOOL]} if changed == "tool_choice" else {})
        headers = {"Idempotency-Key": f"request-{changed}"}
        first = shared_alice.post("/prompts/", json={"prompt_text": TIDES} | fields, headers=headers)
        again = shared_alice.post("/prompts/", json={"prompt_text": TIDES} | fields, headers=headers)
        assert (again.status_code, again.json["id"]) == (202, first.json["id"])
        other = {"prompt_text": TIDES} | {name: value for name, value in fields.items() if name != changed}
        assert_problem(shared_alice.post("/prompts/", json=other, headers=headers), 422)


def test_the_fields_of_a_submission_are_described_in_openapi(app: Flask) -> None:
    schema = app.test_client().get("/openapi.json").json["components"]["schemas"]["Submission"]
    assert {*FIELDS, "prompt_text", "model", "metadata", "priority"} <= schema["properties"].keys()
    assert all(schema["properties"][name]["description"] for name in FIELDS)
