"""Refusals of an overloaded process from the bytes of a request: of whole ordinary submissions, and of nothing else."""

import pytest
from flask import Response

from api.intake.load_shedding import LoadShedder

HOST = b"Host: x\r\n"
LENGTH = b"Content-Length: 2\r\n"


def request(
    path: bytes = b"/prompts/", fields: bytes = HOST + LENGTH, body: bytes = b"{}", method: bytes = b"POST"
) -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\n" + fields + b"\r\n" + body


def make(*, is_overloaded: bool = True) -> LoadShedder:
    refusal = Response('{"status":503}', 503, {"Retry-After": "1"}, content_type="application/problem+json")
    return LoadShedder(lambda *_: [], lambda: is_overloaded, {"/prompts": refusal, "/v1/responses": refusal})


@pytest.mark.parametrize(
    "data",
    [
        request(),
        request(b"/prompts"),
        request(b"/v1/responses"),
        request(
            fields=b"host:x\r\ncontent-length:2\r\nAuthorization: Bearer a.b-c_d\r\nContent-Type: application/json\r\n"
        ),
    ],
)
def test_a_whole_submission_is_refused(data: bytes) -> None:
    answer = make().answer(data)
    assert answer is not None
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 503 SERVICE UNAVAILABLE"
    assert {"Retry-After: 1", "Content-Length: 14", "Cache-Control: no-store"} <= set(lines)
    assert lines[-1].startswith("X-Request-ID: ")
    assert body == b'{"status":503}'


def test_nothing_is_refused_without_an_overload() -> None:
    assert make(is_overloaded=False).answer(request()) is None


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(request()[:-1], id="the rest is missing"),
        pytest.param(request()[:30], id="the head is not whole"),
        pytest.param(request() + b"GET", id="a part of the next one"),
        pytest.param(request() * 2, id="two at once"),
        pytest.param(b"x" + request(), id="not the beginning"),
        pytest.param(b"\r\n" + request(), id="an empty line before"),
        pytest.param(request(method=b"GET"), id="not a submission"),
        pytest.param(request(b"/prompts/1/cancel/"), id="another path"),
        pytest.param(request(b"/prompts/?a=b"), id="a query"),
        pytest.param(request(b"/promptwire/prompts/"), id="a prefix"),
        pytest.param(request(b"http://x/prompts/"), id="an absolute address"),
        pytest.param(request().replace(b"1.1", b"1.0"), id="HTTP/1.0"),
        pytest.param(request(fields=HOST), id="no length"),
        pytest.param(request(fields=HOST + LENGTH + LENGTH), id="two lengths"),
        pytest.param(request(fields=HOST + LENGTH + b"content-length: 0\r\n"), id="another length, too"),
        pytest.param(request(fields=HOST + b"Content-Length: 2, 2\r\n"), id="a list of lengths"),
        pytest.param(request(fields=HOST + b"Content-Length: +2\r\n"), id="a length with a sign"),
        pytest.param(request(fields=HOST + b"Content-Length : 2\r\n"), id="a space before the colon"),
        pytest.param(request(fields=HOST + b"X: a\r\n b\r\n" + LENGTH), id="a folded line"),
        pytest.param(request(fields=HOST + b"X: a\n" + LENGTH), id="a bare line feed"),
        pytest.param(request(fields=HOST + b"X: a\0\r\n" + LENGTH), id="a NUL"),
        pytest.param(request(fields=HOST + LENGTH + b"Transfer-Encoding: chunked\r\n"), id="chunked"),
        pytest.param(request(fields=HOST + LENGTH + b"Expect: 100-continue\r\n"), id="it waits for 100"),
        pytest.param(request(fields=HOST + LENGTH + b"Connection: close\r\n"), id="the connection must end"),
        pytest.param(request(fields=HOST + LENGTH + b"Upgrade: websocket\r\n"), id="an upgrade"),
        pytest.param(request(fields=HOST + LENGTH + b"Origin: https://app.example.com\r\n"), id="CORS"),
        pytest.param(request(fields=HOST + LENGTH + b"X-Request-ID: mine\r\n"), id="an id of its own"),
    ],
)
def test_everything_else_is_left_to_the_parser(data: bytes) -> None:
    assert make().answer(data) is None
