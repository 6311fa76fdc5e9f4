"""`/v1/chat/completions`: each is a prompt, and its caller may hang up."""

import dataclasses
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from sqlalchemy import text

from api.openai import answers
from api.services import Services
from shared.errors import ProviderError
from tests.support import chat
from tests.support.chat import PATH, WEATHER, assert_error
from tests.support.client import ApiUser, serving
from tests.support.providers import Script
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from tests.support.worker_threads import answering
from worker.pipeline import Pipeline

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


@pytest.fixture
def answered(worker: Pipeline) -> Iterator[None]:
    """Prompts are answered."""
    with answering(worker, at_once=10):
        yield


def prompt_of(user: ApiUser) -> dict[str, Any]:
    """The user's newest prompt."""
    return user.get("/prompts/?limit=1").json[0]


@pytest.mark.usefixtures("answered")
class TestAnswers:
    def test_a_chat_completion_has_the_shape_of_the_sdks_model(self, alice: ApiUser) -> None:
        response = chat.create(alice, metadata={"topic": "sea"})
        completion = ChatCompletion.model_validate(response.json, strict=True)
        (choice,) = completion.choices
        assert choice.message.content is not None
        assert "What is a tide?" in choice.message.content
        assert (completion.model, choice.finish_reason) == ("default", "stop")
        assert completion.usage is not None
        assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
        assert completion.metadata == {"topic": "sea"}
        assert int(response.headers["OpenAI-Processing-Ms"]) >= 0
        assert response.headers["X-Request-ID"]

    def test_every_call_is_a_prompt_in_the_list_searchable_and_on_sockets(self, alice: ApiUser) -> None:
        completion = chat.create(alice, metadata={"topic": "sea"}).json
        prompt = prompt_of(alice)
        assert completion["id"] == f"chatcmpl-{prompt['id']}"
        assert (prompt["prompt_text"], prompt["status"], prompt["websocket"]) == ("What is a tide?", "completed", True)
        assert prompt["response_text"] == completion["choices"][0]["message"]["content"]
        assert prompt["metadata"] == {"topic": "sea"}
        found = alice.get("/prompts/similar/", query_string={"prompt": "tide"}).json
        assert [each["id"] for each in found] == [prompt["id"]]

    def test_a_stream_has_the_role_the_text_the_reason_and_done(self, alice: ApiUser) -> None:
        response = chat.stream(alice)
        assert response.mimetype == "text/event-stream"
        found = [ChatCompletionChunk.model_validate(each, strict=True) for each in chat.chunks(response)]
        assert found[0].choices[0].delta.role == "assistant"
        content = "".join(each.choices[0].delta.content or "" for each in found)
        assert content == prompt_of(alice)["response_text"]
        assert found[-1].choices[0].finish_reason == "stop"
        assert {each.id for each in found} == {f"chatcmpl-{prompt_of(alice)['id']}"}
        assert response.text.endswith("data: [DONE]\n\n")

    def test_the_usage_chunk_comes_last_if_it_is_asked_for(self, alice: ApiUser) -> None:
        *_, last = chat.chunks(chat.stream(alice, stream_options={"include_usage": True}))
        assert (last["choices"], last["usage"]) == ([], prompt_of(alice)["usage"])

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_a_tool_that_is_needed_is_called(self, alice: ApiUser, is_stream: bool) -> None:
        response = chat.create(alice, "What is the weather in Lisbon?", tools=[WEATHER], stream=is_stream)
        if is_stream:
            *_, called, ended = chat.chunks(response)
            calls, reason = called["choices"][0]["delta"]["tool_calls"], ended["choices"][0]["finish_reason"]
        else:
            (choice,) = response.json["choices"]
            assert choice["message"]["content"] is None
            calls, reason = choice["message"]["tool_calls"], choice["finish_reason"]
        assert [call["function"]["name"] for call in calls] == ["get_weather"]
        assert reason == "tool_calls"

    def test_the_result_of_a_tool_is_answered(self, alice: ApiUser) -> None:
        ask = {"role": "user", "content": "What is the weather in Lisbon?"}
        called = chat.create(alice, tools=[WEATHER], messages=[ask]).json["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": called["tool_calls"][0]["id"], "content": "18 °C, sunny"}
        answer = chat.create(alice, tools=[WEATHER], messages=[ask, called, result]).json["choices"][0]
        assert answer["finish_reason"] == "stop"
        assert prompt_of(alice)["prompt_text"] == "18 °C, sunny"

    def test_an_answer_is_valid_json_if_a_format_asks_for_it(self, alice: ApiUser) -> None:
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        response_format = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
        content = chat.create(alice, response_format=response_format).json["choices"][0]["message"]["content"]
        assert content.startswith('{"n":')

    def test_an_answer_that_is_cut_says_so(self, alice: ApiUser) -> None:
        assert chat.create(alice, max_tokens=2).json["choices"][0]["finish_reason"] == "length"

    def test_an_image_is_passed_on(self, alice: ApiUser) -> None:
        messages = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, IMAGE]}]
        assert chat.create(alice, messages=messages).status_code == 200
        assert prompt_of(alice)["prompt_text"] == "What is this?"


class TestDurability:
    def test_a_caller_that_hangs_up_loses_nothing(self, alice: ApiUser, worker: Pipeline) -> None:
        with chat.stream(alice) as response:
            first = next(iter(response.response))
        completion_id = f"chatcmpl-{prompt_of(alice)['id']}"
        assert completion_id.encode() in first
        with answering(worker, at_once=10):
            found = alice.get(f"{PATH}/{completion_id}").json
        assert found["id"] == completion_id
        assert found["choices"][0]["message"]["content"] == prompt_of(alice)["response_text"]

    def test_getting_a_chat_completion_waits_for_its_answer(self, alice: ApiUser, worker: Pipeline) -> None:
        chat.stream(alice).close()
        found: list[Any] = []
        path = f"{PATH}/chatcmpl-{prompt_of(alice)['id']}"
        waiting = threading.Thread(target=lambda: found.append(alice.get(path)))
        waiting.start()
        worker.process(1)
        waiting.join(MAX_WAIT_SECONDS)
        assert found[0].json["object"] == "chat.completion"

    def test_the_same_idempotency_key_and_body_make_one_prompt_streamed_or_not(
        self, alice: ApiUser, bob: ApiUser, worker: Pipeline
    ) -> None:
        headers = {"Idempotency-Key": "the-key"}
        with answering(worker, at_once=10):
            first = alice.post(PATH, json=chat.body(), headers=headers)
            again = alice.post(PATH, json=chat.body(), headers=headers)
            streamed = alice.post(PATH, json=chat.body(stream=True), headers=headers)
            others = bob.post(PATH, json=chat.body(), headers=headers)
            assert first.json == again.json
            assert "Idempotency-Replayed" not in first.headers
            assert again.headers["Idempotency-Replayed"] == streamed.headers["Idempotency-Replayed"] == "true"
            *_, last = chat.chunks(streamed)
        assert last["id"] == first.json["id"] != others.json["id"]
        assert len(alice.get("/prompts/").json) == 1
        error = assert_error(alice.post(PATH, json=chat.body("Other"), headers=headers), 422)
        assert error["code"] == "idempotency_key_reused"
        native = alice.post("/prompts/", json={"prompt_text": "What is a tide?"}, headers=headers)
        assert native.status_code == 422

    def test_a_deleted_chat_completion_is_gone_everywhere(self, alice: ApiUser, worker: Pipeline) -> None:
        with answering(worker, at_once=10):
            completion_id = chat.create(alice).json["id"]
        deleted = alice.delete(f"{PATH}/{completion_id}")
        assert deleted.json == {"id": completion_id, "object": "chat.completion.deleted", "deleted": True}
        assert alice.get("/prompts/").json == []
        assert assert_error(alice.get(f"{PATH}/{completion_id}"), 404)["code"] == "prompt_not_found"
        assert_error(alice.delete(f"{PATH}/{completion_id}"), 404)

    def test_what_is_not_a_chat_completion_of_the_caller_does_not_exist(
        self, alice: ApiUser, bob: ApiUser, worker: Pipeline
    ) -> None:
        native = alice.submit()
        with answering(worker, at_once=10):
            foreign = chat.create(bob).json["id"]
        for completion_id in (f"chatcmpl-{native}", foreign, "chatcmpl-0", "chatcmpl-x", f"resp_{native}", "1"):
            assert_error(alice.get(f"{PATH}/{completion_id}"), 404)
            assert_error(alice.delete(f"{PATH}/{completion_id}"), 404)


class TestErrors:
    @pytest.fixture
    def failing(self, worker: Pipeline) -> Iterator[None]:
        refusal = ProviderError("The model refuses this.", retryable=False)
        with answering(dataclasses.replace(worker, generator=Script(refusal)), at_once=10):
            yield

    @pytest.mark.usefixtures("failing")
    def test_a_failed_prompt_is_an_error_with_its_id_that_sdks_do_not_retry(self, alice: ApiUser) -> None:
        response = chat.create(alice)
        error = assert_error(response, 500)
        assert (error["type"], error["code"]) == ("server_error", "prompt_failed")
        assert "The model refuses this." in error["message"]
        assert f"GET /prompts/{prompt_of(alice)['id']}/" in error["message"]
        assert response.headers["X-Should-Retry"] == "false"

    @pytest.mark.usefixtures("failing")
    def test_a_failed_prompt_ends_its_stream_with_an_error(self, alice: ApiUser) -> None:
        response = chat.stream(alice)
        *_, last = chat.chunks(response)
        assert last["error"]["code"] == "prompt_failed"
        assert "[DONE]" not in response.text

    def test_a_cancelled_prompt_is_an_error(self, alice: ApiUser) -> None:
        found: list[Any] = []
        waiting = threading.Thread(target=lambda: found.append(chat.create(alice)))
        waiting.start()
        wait_until(lambda: alice.get("/prompts/").json)
        alice.post(f"/prompts/{prompt_of(alice)['id']}/cancel/")
        waiting.join(MAX_WAIT_SECONDS)
        assert assert_error(found[0], 409)["code"] == "prompt_cancelled"
        assert found[0].headers["X-Should-Retry"] == "false"

    @pytest.mark.parametrize(("headers", "retry"), [({}, "false"), ({"Idempotency-Key": "k"}, None)])
    def test_a_wait_that_is_too_long_is_504_and_says_where_the_answer_will_be(
        self, alice: ApiUser, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], retry: str | None
    ) -> None:
        monkeypatch.setattr(answers, "MAX_SYNC_WAIT_SECONDS", 0)
        response = alice.post(PATH, json=chat.body(), headers=headers)
        error = assert_error(response, 504)
        assert error["code"] == "answer_pending"
        assert f"GET {PATH}/chatcmpl-{prompt_of(alice)['id']}" in error["message"]
        assert response.headers.get("X-Should-Retry") == retry

    def test_a_process_that_stops_answers_503_to_those_who_wait_and_ends_streams(
        self, alice: ApiUser, services: Services
    ) -> None:
        stream, found = chat.stream(alice), []
        read = iter(stream.response)
        next(read)
        waiting = threading.Thread(target=lambda: found.append(chat.create(alice)))
        waiting.start()
        wait_until(lambda: len(alice.get("/prompts/").json) == 2)
        services.relay.shut_down()
        waiting.join(MAX_WAIT_SECONDS)
        assert assert_error(found[0], 503)["code"] == "stopping"
        assert found[0].headers["Retry-After"]
        assert b"answer_pending" in b"".join(read)
        stream.close()

    def test_the_texts_of_an_emptied_prompt_are_gone(self, alice: ApiUser, worker: Pipeline) -> None:
        with answering(worker, at_once=10):
            completion_id = chat.create(alice).json["id"]
        with worker.sessions.begin() as session:
            session.execute(text("UPDATE prompts SET emptied_at = now(), response_text = NULL, prompt_text = ''"))
        assert "age" in assert_error(alice.get(f"{PATH}/{completion_id}"), 404)["message"]

    def test_a_waiting_call_and_a_stream_count_as_waits_of_the_user(
        self, make_app: Callable[..., tuple[Flask, Services]], worker: Pipeline
    ) -> None:
        alice = ApiUser(make_app(user_wait_limit=1)[0], "alice")
        with chat.stream(alice) as response:
            error = assert_error(chat.create(alice), 429)
            assert error["code"] == "user_limit"
            assert "USER_WAIT_LIMIT" in error["message"]
            assert_error(alice.get(f"{PATH}/chatcmpl-{prompt_of(alice)['id']}"), 429)
            assert len(alice.get("/prompts/").json) == 1
            next(iter(response.response))
        with answering(worker, at_once=10):
            assert chat.create(alice).status_code == 200


def test_the_sdk_repeats_what_an_overloaded_service_has_refused(
    make_app: Callable[..., tuple[Flask, Services]], worker: Pipeline
) -> None:
    app, _ = make_app(backlog_limit=1)
    statuses: list[int] = []
    app.after_request(lambda response: statuses.append(response.status_code) or response)
    alice = ApiUser(app, "alice")
    key = alice.create_key(scopes=["prompts:read", "prompts:write"])["key"]
    chat.stream(alice).close()
    found: list[Any] = []
    with serving(app) as url, OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        create = client.chat.completions.with_raw_response.create
        calling = threading.Thread(target=lambda: found.append(create(**chat.body())))
        calling.start()
        wait_until(lambda: 503 in statuses)
        with answering(worker, at_once=10):
            calling.join(MAX_WAIT_SECONDS)
    assert found[0].retries_taken > 0
    assert found[0].parse().choices[0].message.content
