"""The generator `openai` sends all that a prompt asks for, and never leaves out what changes an answer."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from shared.errors import ProviderError
from shared.providers import Exchange, GenerationRequest, Usage
from shared.providers.factory import capabilities
from shared.providers.model_request import Capability, ModelRequest
from shared.providers.openai_endpoint import Endpoint
from shared.providers.openai_generator import OpenAIGenerator
from tests.support.openai_client import KEY, body, refusal
from tests.support.openai_client import generator as make
from tests.support.openai_replies import Reply
from tests.support.openai_server import OpenAIServer
from tests.support.raw_server import RawServer, response
from tests.support.servers import MAX_WAIT_SECONDS, make_settings

CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}, "strict": True}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True}}
PARTS = [
    {"type": "text", "text": "What are these?"},
    {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
]


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer) -> OpenAIServer:
    running.reset()
    return running


def send(server: OpenAIServer, prompt: str = "Why?", *, history: Any = (), options: Any = None, **asked: Any) -> Any:
    """Ask the generator. Returns the body of its request, without what each has."""
    made = make(server.url, **(options or {}))
    list(made.generate(GenerationRequest(prompt, history, asked=ModelRequest(**asked))))
    return {name: value for name, value in server.requests[-1].body.items() if name not in ("stream", "stream_options")}


def test_the_generator_openai_can_do_all_that_a_prompt_may_ask_for() -> None:
    assert capabilities(make_settings(generator="openai")) == set(Capability)


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"top_p": 0.5}, {"top_p": 0.5}),
        ({"max_output_tokens": 7}, {"max_tokens": 7}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"seed": 0}, {"seed": 0}),
        ({"frequency_penalty": 0.0, "presence_penalty": -1.5}, {"frequency_penalty": 0.0, "presence_penalty": -1.5}),
        ({"reasoning_effort": "low"}, {"reasoning_effort": "low"}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        ({"response_format": FORMAT}, {"response_format": FORMAT}),
        ({"tools": [TOOL]}, {"tools": [TOOL]}),
        (
            {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
            {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False},
        ),
    ],
    ids=str,
)
def test_a_parameter_is_sent_by_its_name_and_nothing_else_is(
    server: OpenAIServer, asked: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert send(server, **asked) == {"model": "m", "messages": [{"role": "user", "content": "Why?"}]} | sent


@pytest.mark.parametrize(("own", "operators", "sent"), [(5, 9, 5), (20, 9, 9), (None, 9, 9), (20, None, 20)])
def test_a_prompt_may_ask_for_fewer_tokens_than_the_operator_allows_but_not_for_more(
    server: OpenAIServer, own: int | None, operators: int | None, sent: int
) -> None:
    assert send(server, options={"max_tokens": operators}, max_output_tokens=own)["max_tokens"] == sent


@pytest.mark.parametrize(("own", "sent"), [(1.5, 1.5), (0, 0), (None, 0.3)])
def test_the_temperature_of_a_prompt_replaces_the_operators(
    server: OpenAIServer, own: float | None, sent: float
) -> None:
    assert send(server, options={"temperature": 0.3}, temperature=own)["temperature"] == sent


def test_openai_itself_gets_the_new_name_of_the_limit(server: OpenAIServer) -> None:
    endpoint = Endpoint(server.url, KEY, timeout_seconds=MAX_WAIT_SECONDS)
    endpoint.is_openai = True
    made = OpenAIGenerator(endpoint, "m", max_tokens=9)
    list(made.generate(GenerationRequest("Why?", asked=ModelRequest(max_output_tokens=5))))
    assert server.requests[-1].body["max_completion_tokens"] == 5


def test_the_operators_system_prompt_comes_first_then_instructions_history_and_messages(server: OpenAIServer) -> None:
    earlier = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    results = [{"role": "tool", "tool_call_id": "call_1", "content": "rain"}]
    sent = send(
        server,
        "rain",
        history=[Exchange("One?", "1.")],
        options={"system_prompt": "Be kind."},
        instructions="Be brief.",
        messages=earlier,
        input=results,
    )
    assert sent["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "1."},
        *earlier,
        *results,
    ]


def test_images_are_passed_on_as_url_and_as_data(server: OpenAIServer) -> None:
    sent = send(server, "What are these?", input=[{"role": "user", "content": PARTS}])
    assert sent["messages"] == [{"role": "user", "content": PARTS}]


def test_tool_calls_come_back_in_the_usage(server: OpenAIServer) -> None:
    server.script(Reply((), finish_reason="tool_calls", tool_calls=[CALL]))
    asked = ModelRequest(tools=[TOOL])
    (usage,) = make(server.url).generate(GenerationRequest("Weather?", asked=asked))
    assert isinstance(usage, Usage)
    assert (usage.finish_reason, usage.tool_calls) == ("tool_calls", [CALL])


# Refusals

ASKED: dict[str, Any] = {
    "temperature": 2.0,
    "top_p": 0.5,
    "stop": ["x"],
    "seed": 1,
    "frequency_penalty": 1.0,
    "presence_penalty": 1.0,
    "reasoning_effort": "low",
    "response_format": FORMAT,
    "tools": [TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
}


def refused(server: RawServer, reply: bytes) -> ProviderError:
    server.script(reply)
    with pytest.raises(ProviderError) as raised:
        list(make(server.url).generate(GenerationRequest("Why?", asked=ModelRequest(**ASKED))))
    return raised.value


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("shape", ["param", "place in param", "message", "validator"])
def test_a_refused_parameter_is_an_error_that_names_it_and_is_not_left_out(
    raw_server: RawServer, name: str, shape: str
) -> None:
    replies = {
        "param": refusal(message="Unsupported value.", param=name),
        "place in param": refusal(message="Unsupported value.", param=f"{name}[0].function"),
        "message": refusal(message=f"Unsupported parameter: '{name}'."),
        "validator": response(
            json.dumps({"detail": [{"loc": ["body", name, 0], "msg": "Extra inputs are not permitted"}]}).encode(),
            "application/json",
            "422 Unprocessable Entity",
            length=True,
        ),
    }
    error = refused(raw_server, replies[shape])
    assert name in str(error)
    assert not error.retryable
    assert [name in body(request) for request in raw_server.requests] == [True]


def test_a_refusal_with_status_500_is_one_nevertheless(raw_server: RawServer) -> None:
    """llama.cpp's Python server answers invalid requests like this."""
    message = "1 validation error: {'loc': ('body', 'response_format', 'type'), 'msg': \"Input should be 'text'\"}"
    error = refused(raw_server, refusal("500 Internal Server Error", message=message))
    assert str(error).startswith("The provider refused the request (400): 1 validation error")
    assert not error.retryable


def test_a_refusal_that_names_no_parameter_is_quoted_alone(raw_server: RawServer) -> None:
    error = refused(raw_server, refusal(message="No", param="elsewhere"))
    assert str(error) == "The provider refused the request (400): No."


def test_a_parameter_that_the_message_names_is_not_named_twice(raw_server: RawServer) -> None:
    error = refused(raw_server, refusal(message="No 'seed' here", param="seed"))
    assert str(error) == "The provider refused the request (400): No 'seed' here."
