"""Responses of `/v1/responses` through Flask's test client, and a worker beside them."""

from typing import Any

from werkzeug.test import TestResponse

from tests.support.client import ApiUser
from tests.support.openresponses import parse_events

PATH = "/v1/responses"
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}


def create(user: ApiUser, given: Any = "What is a tide?", /, **fields: Any) -> TestResponse:
    """Create a response. Unless it is in the background or a stream, this waits for a worker."""
    return user.post(PATH, json={"model": "default", "input": given} | fields)


def queue(user: ApiUser, given: Any = "What is a tide?", /, **fields: Any) -> str:
    """Create a response in the background. Returns its id."""
    response = create(user, given, background=True, **fields)
    assert response.status_code == 200, response.text
    return response.json["id"]


def prompt_of(response_id: str) -> int:
    """The id of a response's prompt."""
    return int(response_id.removeprefix("resp_"))


def events(user: ApiUser, response_id: str, after: int | None = None) -> list[dict[str, Any]]:
    """All events of a response that has ended, or those after one."""
    resumed = "" if after is None else f"&starting_after={after}"
    response = user.get(f"{PATH}/{response_id}?stream=true{resumed}")
    assert response.status_code == 200, response.text
    assert response.content_type.startswith("text/event-stream")
    return parse_events(response.text)
