"""The generator `openai` understands the tool calls of all servers, byte by byte."""

from collections.abc import Iterator

import pytest

from shared.errors import ProviderError
from shared.providers import GenerationRequest, Generator, Usage
from shared.providers.factory import make_generator
from shared.providers.model_request import ModelRequest
from shared.providers.openai_generator import read_texts
from shared.providers.openai_stream import AnswerReader
from shared.providers.openai_tool_calls import ToolCalls
from tests.support import tool_dialects
from tests.support.costs import assert_linear
from tests.support.raw_server import RawServer, response
from tests.support.servers import make_settings
from tests.support.tool_dialects import Called, ToolCase

CASES = [pytest.param(case, id=case.name) for case in tool_dialects.TOOL_CALLS]
CALLED = [param for param in CASES if isinstance(param.values[0].expected, Called)]
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("get_weather", "get_time")]
REQUEST = GenerationRequest("What is the weather?", asked=ModelRequest(tools=TOOLS))


@pytest.fixture(scope="module")
def running() -> Iterator[RawServer]:
    with RawServer() as server:
        yield server


@pytest.fixture
def server(running: RawServer) -> RawServer:
    running.reset()
    return running


@pytest.fixture(scope="module")
def generator(running: RawServer) -> Generator:
    given = {"openai_base_url": running.url, "openai_api_key": "sk-test", "openai_model": "m"}
    return make_generator(make_settings(generator="openai", **given))


def check(texts: list[str], usage: Usage, expected: Called) -> None:
    calls = usage.tool_calls or ()
    assert "".join(texts) == expected.text
    assert usage.finish_reason == expected.finish_reason
    assert tuple((call["function"]["name"], call["function"]["arguments"]) for call in calls) == expected.calls
    ids = [call["id"] for call in calls]
    assert all(ids)
    assert len(set(ids)) == len(ids)
    assert all(call["type"] == "function" for call in calls)
    if expected.ids is not None:
        assert tuple(ids) == expected.ids


@pytest.mark.parametrize("case", CASES)
def test_the_tool_calls_of_a_dialect_are_understood(server: RawServer, generator: Generator, case: ToolCase) -> None:
    server.script(response(case.body, case.content_type))
    if isinstance(case.expected, Called):
        *texts, usage = generator.generate(REQUEST)
        assert isinstance(usage, Usage)
        check(list(map(str, texts)), usage, case.expected)
        return
    with pytest.raises(ProviderError) as raised:
        list(generator.generate(REQUEST))
    assert case.expected.words in str(raised.value)
    assert raised.value.retryable is case.expected.retryable


@pytest.mark.parametrize("case", CALLED)
def test_tool_calls_are_understood_wherever_they_are_cut(case: ToolCase) -> None:
    for length in (1, 3, 64):
        reader = AnswerReader("m", lambda payload: ProviderError(str(payload)), offers_tools=True)
        pieces = (case.body[i : i + length] for i in range(0, len(case.body), length))
        texts = [*read_texts(pieces, reader), reader.end()]
        check(texts, reader.usage, case.expected)


def test_calls_of_a_model_that_was_offered_no_tools_are_no_answer(server: RawServer, generator: Generator) -> None:
    server.script(response(tool_dialects.FIRST + tool_dialects.REST + tool_dialects.END))
    with pytest.raises(ProviderError, match="though it was offered none"):
        list(generator.generate(GenerationRequest("Why?")))


@pytest.mark.parametrize("name", ["", "f"])
def test_reading_arguments_in_pieces_takes_a_time_in_proportion_to_their_length(name: str) -> None:
    def read(length: int) -> None:
        calls = ToolCalls()
        calls.read({"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, is_whole=False)
        for piece in ['{"a":"', *(["abcd"] * (length // 4)), '"}']:
            calls.read({"tool_calls": [{"index": 0, "function": {"name": name, "arguments": piece}}]}, is_whole=False)
        assert len(calls.end(is_cut=False)) == 1

    assert_linear(read, 25_000)
