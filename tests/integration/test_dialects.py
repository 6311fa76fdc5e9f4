"""The generator `openai` understands the dialects of OpenAI's API that servers are seen to speak, byte by byte."""

from collections.abc import Iterator

import pytest

from shared.errors import ProviderError, ProviderOverloadedError, ProviderUnavailableError
from shared.providers import GenerationRequest, Generator, Usage
from shared.providers.factory import make_generator
from shared.providers.openai_generator import read_texts
from shared.providers.openai_stream import AnswerReader
from tests.support import dialects
from tests.support.dialects import Answer, Case
from tests.support.raw_server import RawServer, response
from tests.support.servers import make_settings

CASES = [pytest.param(case, id=f"{kind}: {case.name}") for kind, cases in dialects.ALL.items() for case in cases]
PLAIN = [case for case in CASES if isinstance(case.values[0].expected, Answer) and not case.values[0].headers]
CUT = ("as OpenAI does", "CR LF", "BOM", "cut UTF-8", "a cut pair", "indented JSON", "gzip")


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


def check(generator: Generator, case: Case) -> None:
    """Ask the generator, and compare what it yields with the case."""
    if isinstance(case.expected, Answer):
        *texts, usage = generator.generate(GenerationRequest("Why?"))
        assert "".join(map(str, texts)) == case.expected.text
        assert usage == case.expected.usage
        return
    with pytest.raises(ProviderError) as raised:
        list(generator.generate(GenerationRequest("Why?")))
    assert case.expected.words in str(raised.value)
    kinds = (ProviderOverloadedError, ProviderUnavailableError, ProviderError)
    assert next(kind for kind in kinds if isinstance(raised.value, kind)) is case.expected.kind
    assert raised.value.retryable is case.expected.retryable


@pytest.mark.parametrize("case", CASES)
def test_a_dialect_is_understood(server: RawServer, generator: Generator, case: Case) -> None:
    server.script(response(case.body, case.content_type, headers=case.headers))
    check(generator, case)
    assert len(server.requests) == 1


@pytest.mark.parametrize("case", [case for case in CASES if case.values[0].name in CUT])
def test_a_dialect_is_understood_if_each_byte_is_sent_by_itself(
    server: RawServer, generator: Generator, case: Case
) -> None:
    head, _, body = response(case.body, case.content_type, headers=case.headers).partition(b"\r\n\r\n")
    server.script(head + b"\r\n\r\n", *(body[i : i + 1] for i in range(len(body))))
    check(generator, case)


@pytest.mark.parametrize("case", PLAIN)
def test_a_dialect_is_understood_wherever_it_is_cut(case: Case) -> None:
    for length in (1, 2, 3, 7, 64):
        reader = AnswerReader("m", lambda payload: ProviderError(str(payload)))
        pieces = (case.body[i : i + length] for i in range(0, len(case.body), length))
        assert "".join(read_texts(pieces, reader)) + reader.end() == case.expected.text
        assert reader.usage == case.expected.usage


def test_text_arrives_before_the_line_after_it(server: RawServer, generator: Generator) -> None:
    server.script(response(dialects.HEL.removesuffix(b"\n")), then="silence")
    parts = generator.generate(GenerationRequest("Why?"))
    assert next(parts) == "Hel"
    parts.close()


def test_chunks_with_trailers_are_understood_and_the_connection_is_reused(
    server: RawServer, generator: Generator
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Took\r\n\r\n"
    body = b"".join(
        b"%X;ext=1\r\n%s\r\n" % (len(each), each) for each in (dialects.HELLO, dialects.STOP, dialects.DONE)
    )
    for _ in range(2):
        server.script(head, body, b"0\r\nX-Took: 1\r\n\r\n", then="keep")
        assert list(generator.generate(GenerationRequest("Why?")))[-1] == Usage("m", finish_reason="stop")
    assert [len(connection.requests) for connection in server.connections] == [2]


def test_tokens_that_a_model_used_without_answering_are_reported(server: RawServer, generator: Generator) -> None:
    usage = dialects.event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 700}})
    reasoning = dialects.choice(index=0, delta={"reasoning": "Hm"}, finish_reason="length")
    server.script(response(reasoning + usage + dialects.DONE))
    parts = generator.generate(GenerationRequest("Why?"))
    assert next(parts) == Usage("m", 9, 700, "length")
    with pytest.raises(ProviderError, match="limit of tokens while reasoning"):
        next(parts)
