"""Chat completions by the Python SDK. Each function is a test."""

import json
from uuid import uuid4

import httpx
import pytest
from openai import NotFoundError, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel

from tests.support.chat import WEATHER

QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Explain what causes ocean tides"}]
IN_LISBON: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is the weather in Lisbon?"}]
TOOL: ChatCompletionToolParam = WEATHER


class Tide(BaseModel):
    """A format of an answer."""

    cause: str
    per_day: int


def a_question_is_answered(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="default", messages=QUESTION)
    assert "ocean tides" in (completion.choices[0].message.content or "")
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None


def all_roles_are_taken(client: OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        *QUESTION,
    ]
    assert client.chat.completions.create(model="default", messages=messages).choices


def parameters_are_taken(client: OpenAI) -> None:
    completion = client.chat.completions.create(
        model="default",
        messages=QUESTION,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        frequency_penalty=0.1,
        presence_penalty=0.1,
        max_completion_tokens=2,
        stop=["never"],
        metadata={"topic": "sea"},
        n=1,
        user="u",
        store=True,
    )
    assert completion.choices[0].finish_reason == "length"
    assert completion.metadata == {"topic": "sea"}


def an_image_is_taken(client: OpenAI) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    content = [{"type": "text", "text": "What is this?"}, image]
    client.chat.completions.create(model="default", messages=[{"role": "user", "content": content}])


def a_tool_is_called_and_its_result_answered(client: OpenAI) -> None:
    asked = client.chat.completions.create(model="default", messages=IN_LISBON, tools=[TOOL])
    message = asked.choices[0].message
    (call,) = message.tool_calls or []
    assert call.type == "function"
    assert isinstance(json.loads(call.function.arguments), dict)
    result: ChatCompletionMessageParam = {"role": "tool", "tool_call_id": call.id, "content": "18 °C"}
    messages = [*IN_LISBON, message, result]
    answer = client.chat.completions.create(model="default", messages=messages, tools=[TOOL])
    assert answer.choices[0].finish_reason == "stop"


def an_answer_is_parsed_into_a_model(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(model="default", messages=QUESTION, response_format=Tide)
    assert isinstance(parsed.choices[0].message.parsed, Tide)


def a_stream_is_the_whole_answer(client: OpenAI) -> None:
    stream = client.chat.completions.create(model="default", messages=QUESTION, stream=True)
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    whole = client.chat.completions.retrieve(chunks[0].id)
    assert text == whole.choices[0].message.content


def a_stream_has_its_usage(client: OpenAI) -> None:
    options = {"include_usage": True}
    stream = client.chat.completions.create(model="default", messages=QUESTION, stream=True, stream_options=options)
    assert list(stream)[-1].usage.total_tokens > 0


def the_sdks_own_stream_helper_gathers_tool_calls(client: OpenAI) -> None:
    with client.chat.completions.stream(model="default", messages=IN_LISBON, tools=[TOOL]) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].finish_reason == "tool_calls"


def a_caller_that_hangs_up_finds_the_answer_by_its_id(client: OpenAI) -> None:
    with client.chat.completions.create(model="default", messages=QUESTION, stream=True) as stream:
        completion_id = next(iter(stream)).id
    assert client.chat.completions.retrieve(completion_id).choices[0].message.content
    prompt_id = completion_id.removeprefix("chatcmpl-")
    headers = {"Authorization": f"Bearer {client.api_key}"}
    prompt = httpx.get(f"{str(client.base_url).removesuffix('v1/')}prompts/{prompt_id}/", headers=headers).json()
    assert prompt["status"] == "completed"


def a_repeated_key_has_the_same_answer(client: OpenAI) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    first, again = (
        client.chat.completions.create(model="default", messages=QUESTION, extra_headers=headers) for _ in range(2)
    )
    assert first == again


def a_deleted_completion_is_gone(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="default", messages=QUESTION)
    assert client.chat.completions.delete(completion.id).deleted


def chat_completions_are_listed_page_by_page(client: OpenAI) -> None:
    topic = uuid4().hex
    made = [
        client.chat.completions.create(model="default", messages=QUESTION, metadata={"topic": topic}).id for _ in "abc"
    ]
    listed = client.chat.completions.list(metadata={"topic": topic}, model="default", limit=2)
    assert [each.id for each in listed] == made
    newest = client.chat.completions.list(metadata={"topic": topic}, order="desc", after=made[2])
    assert [each.id for each in newest] == [made[1], made[0]]


def the_messages_of_a_completion_are_listed(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="default", messages=[*IN_LISBON, *QUESTION])
    listed = client.chat.completions.messages.list(completion.id, limit=1)
    assert [message.content for message in listed] == [IN_LISBON[0]["content"], QUESTION[0]["content"]]


def an_unstored_completion_is_answered_and_not_found(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="default", messages=QUESTION, store=False)
    assert completion.choices[0].message.content
    with pytest.raises(NotFoundError):
        client.chat.completions.retrieve(completion.id)


def the_metadata_of_a_completion_is_replaced(client: OpenAI) -> None:
    completion = client.chat.completions.create(model="default", messages=QUESTION, metadata={"topic": "sea"})
    assert client.chat.completions.update(completion.id, metadata={"topic": "moon"}).metadata == {"topic": "moon"}
