"""Chat completions through Flask's test client."""

import json
from collections.abc import Iterator
from typing import Any

from werkzeug.test import TestResponse

from tests.support.client import ApiUser

PATH = "/v1/chat/completions"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def body(text: str = "What is a tide?", **fields: Any) -> dict[str, Any]:
    """The body of a chat completion."""
    return {"model": "default", "messages": [{"role": "user", "content": text}]} | fields


def create(user: ApiUser, text: str = "What is a tide?", **fields: Any) -> TestResponse:
    """Create a chat completion. Unless it is a stream, it waits for a worker."""
    return user.post(PATH, json=body(text, **fields))


def stream(user: ApiUser, text: str = "What is a tide?", **fields: Any) -> TestResponse:
    """Create a chat completion that is streamed. Nothing of it is read yet."""
    return create(user, text, stream=True, **fields)


def chunks(response: TestResponse) -> Iterator[dict[str, Any]]:
    """The data of a stream's events, to its end or to `[DONE]`, which is the last."""
    for event in response.text.split("\n\n"):
        if event.startswith("data: ") and event != "data: [DONE]":
            yield json.loads(event.removeprefix("data: "))


def assert_error(response: TestResponse, status: int) -> dict[str, Any]:
    """Check that the response is an error of OpenAI's API. Returns it."""
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    error = response.json["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error
