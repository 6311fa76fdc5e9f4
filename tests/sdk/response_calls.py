"""Responses by the Python SDK. Each function is a test."""

import json
import time

import openai
import pytest
from openai import OpenAI
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel

from tests.support.responses import WEATHER

QUESTION = "Explain what causes ocean tides"
IN_LISBON = "What is the weather in Lisbon?"
TOOL: FunctionToolParam = WEATHER  # type: ignore[assignment]


class Rising(BaseModel):
    """A format of an answer."""

    cause: str
    per_day: int


def a_response_is_answered(client: OpenAI) -> None:
    response = client.responses.create(model="default", input=QUESTION)
    assert "ocean tides" in response.output_text
    assert response.status == "completed"
    assert response.usage is not None


def response_parameters_are_taken(client: OpenAI) -> None:
    response = client.responses.create(
        model="default",
        input=[{"role": "developer", "content": "Be kind."}, {"role": "user", "content": QUESTION}],
        instructions="Be brief.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=16,
        metadata={"topic": "sea"},
        truncation="disabled",
        user="u",
    )
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.metadata == {"topic": "sea"}


def a_background_response_is_retrieved_when_it_has_ended(client: OpenAI) -> None:
    response = client.responses.create(model="default", input=QUESTION, background=True)
    assert response.status == "queued"
    while response.status in ("queued", "in_progress"):
        time.sleep(0.05)
        response = client.responses.retrieve(response.id)
    assert "ocean tides" in response.output_text


def a_response_is_streamed(client: OpenAI) -> None:
    with client.responses.stream(model="default", input=QUESTION) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text


def a_background_stream_is_resumed_behind_any_event(client: OpenAI) -> None:
    stream = client.responses.create(model="default", input=QUESTION, background=True, stream=True)
    first = [next(stream) for _ in range(5)]
    stream.close()
    response_id = first[0].response.id  # type: ignore[union-attr]
    rest = client.responses.retrieve(response_id, stream=True, starting_after=first[-1].sequence_number)
    numbers = [event.sequence_number for event in (*first, *rest)]
    assert numbers == list(range(len(numbers)))


def a_background_response_is_cancelled_twice(client: OpenAI) -> None:
    response = client.responses.create(model="default", input=QUESTION, background=True)
    first = client.responses.cancel(response.id)
    assert first.status in ("cancelled", "completed")
    assert client.responses.cancel(response.id) == first


def a_response_is_deleted(client: OpenAI) -> None:
    response = client.responses.create(model="default", input=QUESTION)
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def input_items_are_listed_page_by_page(client: OpenAI) -> None:
    items = [{"role": "user", "content": f"message {number}"} for number in range(3)]
    response = client.responses.create(model="default", input=items, background=True)  # type: ignore[arg-type]
    listed = list(client.responses.input_items.list(response.id, limit=2, order="asc"))
    assert [item.content[0].text for item in listed] == ["message 0", "message 1", "message 2"]  # type: ignore[union-attr]


def a_conversation_is_continued(client: OpenAI) -> None:
    first = client.responses.create(model="default", input="My name is Ada")
    second = client.responses.create(model="default", input="What is my name?", previous_response_id=first.id)
    assert "My name is Ada" in second.output_text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError, match="deleted"):
        client.responses.create(model="default", input="And now?", previous_response_id=first.id)


def a_response_has_the_format_of_a_class(client: OpenAI) -> None:
    parsed = client.responses.parse(model="default", input=QUESTION, text_format=Rising)
    assert isinstance(parsed.output_parsed, Rising)


def a_function_is_called_and_its_result_answered(client: OpenAI) -> None:
    asked = client.responses.create(model="default", input=IN_LISBON, tools=[TOOL])
    (call,) = asked.output
    assert call.type == "function_call"
    assert json.loads(call.arguments).keys() == {"city"}
    answered = client.responses.create(
        model="default",
        previous_response_id=asked.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"}],
        tools=[TOOL],
    )
    assert "18 degrees" in answered.output_text


def an_image_is_an_input(client: OpenAI) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}
    content = [{"type": "input_text", "text": "What is this?"}, image]
    response = client.responses.create(model="default", input=[{"role": "user", "content": content}])  # type: ignore[list-item, misc]
    assert "I was sent 1 image" in response.output_text


def a_response_that_is_not_stored_is_not_found(client: OpenAI) -> None:
    response = client.responses.create(model="default", input=QUESTION, store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


def a_tool_that_is_not_served_is_a_bad_request_with_its_name(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="default", input=QUESTION, tools=[{"type": "web_search"}])
    assert raised.value.param == "tools[0].type"
