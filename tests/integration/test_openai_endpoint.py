"""How the provider `openai` connects: kept-alive connections, paths, and refused parameters."""

import json
import threading
import time
from typing import Any

import pytest

from shared.errors import ProviderError, ProviderUnavailableError
from shared.providers import openai_endpoint
from shared.providers.openai_generator import read_texts
from shared.providers.openai_stream import AnswerReader
from shared.settings import SettingsError
from tests.support.dialects import HEL, JSON, LO, STOP, WHOLE, chunk
from tests.support.openai_client import ask, body, failure, generator, path, refusal
from tests.support.raw_server import RawServer, response
from tests.support.servers import MAX_WAIT_SECONDS


@pytest.mark.parametrize("url", ["localhost:11434/v1", "https://", "ftp://host/v1", "https://host:port/v1"])
def test_a_base_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="OPENAI_BASE_URL is not a valid URL"):
        openai_endpoint.Endpoint(url, "", timeout_seconds=1)


# Connections


def test_a_kept_alive_connection_that_was_cut_is_replaced_once(raw_server: RawServer) -> None:
    made = generator(raw_server.url)
    raw_server.script(response(WHOLE, length=True), then="keep")
    raw_server.script()  # the server closes the connection when the next request comes
    raw_server.script(response(WHOLE))
    assert [ask(made), ask(made)] == ["Hello", "Hello"]
    assert [len(connection.requests) for connection in raw_server.connections] == [2, 1]


def test_a_new_connection_that_is_cut_is_not_replaced(raw_server: RawServer) -> None:
    raw_server.script(then="reset")
    error = failure(generator(raw_server.url))
    assert (error.retryable, isinstance(error, ProviderUnavailableError)) == (True, False)
    assert str(error) == f"The connection to http://127.0.0.1:{raw_server.port} was interrupted."
    assert len(raw_server.requests) == 1


def test_a_kept_alive_connection_that_is_cut_within_a_response_is_not_replaced(raw_server: RawServer) -> None:
    made = generator(raw_server.url)
    raw_server.script(response(WHOLE, length=True), then="keep")
    raw_server.script(response(b"", length=True)[:20])
    ask(made)
    assert "was interrupted" in str(failure(made))
    assert len(raw_server.requests) == 2


def test_a_response_that_is_complete_leaves_its_connection_to_the_next_request(raw_server: RawServer) -> None:
    made = generator(raw_server.url)
    for _ in range(3):
        raw_server.script(response(WHOLE, length=True), then="keep")
        ask(made)
    raw_server.script(response(b"{}", JSON, "500 Oops", length=True), then="keep")
    failure(made)
    assert [len(connection.requests) for connection in raw_server.connections] == [4]


def test_a_server_that_never_ends_its_response_does_not_hold_the_answer_back(raw_server: RawServer) -> None:
    raw_server.script(response(WHOLE), then="silence")
    assert ask(generator(raw_server.url)) == "Hello"
    assert raw_server.connections[0].is_closed.wait(MAX_WAIT_SECONDS)


def test_many_threads_share_an_endpoint_with_a_connection_each(raw_server: RawServer) -> None:
    made, count = generator(raw_server.url), 30
    for _ in range(2 * count):
        raw_server.script(response(WHOLE, length=True), then="keep")
    for _ in range(2):
        answers: list[str] = []
        barrier = threading.Barrier(count)

        def run(answers: list[str] = answers, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(MAX_WAIT_SECONDS)
            answers.append(ask(made))

        threads = [threading.Thread(target=run) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(MAX_WAIT_SECONDS)
        assert answers == ["Hello"] * count
    assert len(raw_server.requests) == 2 * count
    assert len(raw_server.connections) <= 2 * count - 1  # some were used again


# Paths


def test_the_query_of_the_base_url_is_sent_with_each_request(raw_server: RawServer) -> None:
    raw_server.script(response(WHOLE))
    raw_server.script(response(b'{"data": []}', JSON))
    made = generator(f"{raw_server.url}/?api-version=2026-01-01")
    ask(made)
    assert made.endpoint.models() == []
    assert [path(request) for request in raw_server.requests] == [
        "/v1/chat/completions?api-version=2026-01-01",
        "/v1/models?api-version=2026-01-01",
    ]


def test_v1_is_added_and_remembered_if_the_path_is_not_found_without_it(raw_server: RawServer) -> None:
    url = raw_server.url.removesuffix("/v1")
    raw_server.script(refusal("404 Not Found", message="No such page"))
    raw_server.script(response(WHOLE))
    raw_server.script(response(WHOLE))
    assert [ask(generator(url)), ask(generator(url))] == ["Hello", "Hello"]
    found, last = "/v1/chat/completions", "/v1/chat/completions"
    assert [path(request) for request in raw_server.requests] == ["/chat/completions", found, last]


def test_v1_is_not_added_if_the_path_is_not_found_with_it_either(raw_server: RawServer) -> None:
    for message in ("No such model", "No such page"):
        raw_server.script(refusal("404 Not Found", message=message))
    error = failure(generator(raw_server.url.removesuffix("/v1")))
    assert (str(error), error.retryable) == ("The provider refused the request (404): No such model.", False)


def test_a_base_url_may_name_the_whole_path(raw_server: RawServer) -> None:
    raw_server.script(response(WHOLE))
    ask(generator(f"{raw_server.url}/chat/completions"))
    assert path(raw_server.requests[0]) == "/v1/chat/completions"


@pytest.mark.parametrize(
    "listed",
    [{"data": [{"id": "a"}, {"id": "b"}]}, {"models": [{"name": "a"}, {"model": "b"}, {}, 5]}, ["a", {"id": "b"}]],
)
def test_models_are_listed(raw_server: RawServer, listed: Any) -> None:
    raw_server.script(response(json.dumps(listed).encode(), JSON))
    assert generator(raw_server.url).endpoint.models() == ["a", "b"]


def test_a_refused_list_of_models_says_why(raw_server: RawServer) -> None:
    raw_server.script(refusal("401 Unauthorized", message="No"))
    with pytest.raises(ProviderError, match="refused the key"):
        generator(raw_server.url).endpoint.models()


# Redirects


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_that_keeps_the_request_is_followed(raw_server: RawServer, status: str) -> None:
    raw_server.script(response(b"", status=status, headers=f"Location: {raw_server.url}/other\r\n"))
    raw_server.script(response(WHOLE))
    assert ask(generator(raw_server.url)) == "Hello"
    assert raw_server.requests[1].startswith(b"POST /v1/other ")


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other"])
def test_a_redirect_that_changes_the_request_is_the_operators_to_fix(raw_server: RawServer, status: str) -> None:
    """For example from http to https. The answer to the GET would be misleading."""
    raw_server.script(response(b"", status=status, headers=f"Location: {raw_server.url}/other?key=secret\r\n"))
    raw_server.script(response(b"{}", JSON, "405 Method Not Allowed"))
    error = failure(generator(raw_server.url))
    assert str(error).endswith(f" redirects to {raw_server.url}/other. The operator must correct OPENAI_BASE_URL.")
    assert not error.retryable


# The end of an answer


def test_a_response_that_does_not_end_with_its_answer_is_not_waited_for(
    raw_server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_endpoint, "REST_SECONDS", 0.05)
    raw_server.script(response(HEL + LO + STOP), then="silence")
    started = time.monotonic()
    assert ask(generator(raw_server.url)) == "Hello"
    assert time.monotonic() - started < MAX_WAIT_SECONDS / 2


def test_a_response_whose_answer_goes_on_is_waited_for_as_usual() -> None:
    """Some servers send a finish_reason with each piece."""
    reader, limits = AnswerReader("m", lambda _: ProviderError("")), []
    pieces = iter([chunk("Hel", "stop"), chunk("lo", "stop")])
    assert list(read_texts(pieces, reader, limits.append)) == ["Hel", "lo"]
    assert limits == [True, False]


# Refused parameters


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        ("stream_options", {"message": "Unknown parameter: 'stream_options'."}),
        ("stream_options", {"message": "Extra inputs", "param": "stream_options.include_usage"}),
    ],
)
def test_a_refused_parameter_is_left_out_and_never_sent_again(
    raw_server: RawServer, refused: str, error: dict[str, str]
) -> None:
    raw_server.script(refusal(**error), then="keep")
    raw_server.script(response(WHOLE))
    raw_server.script(response(WHOLE))
    assert [ask(generator(raw_server.url)), ask(generator(raw_server.url))] == ["Hello", "Hello"]
    assert [refused in body(request) for request in raw_server.requests] == [True, False, False]


def test_validators_name_the_parameter_by_its_place(raw_server: RawServer) -> None:
    detail = [{"loc": ["body", "stream_options"], "msg": "extra fields not permitted"}]
    raw_server.script(response(json.dumps({"detail": detail}).encode(), JSON, "422 No"))
    raw_server.script(response(WHOLE))
    assert ask(generator(raw_server.url)) == "Hello"
    assert "stream_options" not in body(raw_server.requests[1])


def test_a_limit_of_tokens_is_renamed_if_the_server_wants_that(raw_server: RawServer) -> None:
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    raw_server.script(refusal(message=message, param="max_tokens"))
    raw_server.script(response(WHOLE))
    raw_server.script(response(WHOLE))
    for _ in range(2):
        ask(generator(raw_server.url, max_tokens=9))
    sent = [body(request) for request in raw_server.requests]
    assert [each.get("max_tokens") for each in sent] == [9, None, None]
    assert [each.get("max_completion_tokens") for each in sent] == [None, 9, 9]


@pytest.mark.parametrize(
    "error",
    [
        {"message": "max_tokens is too large: 9. This model has 4.", "param": "max_tokens"},
        {"message": "Unsupported value: 'temperature' does not support 0.5.", "param": "temperature"},
        {"message": "It has no vision."},
    ],
)
def test_a_parameter_that_changes_the_answer_is_not_left_out(raw_server: RawServer, error: dict[str, str]) -> None:
    raw_server.script(refusal(**error))
    refused = failure(generator(raw_server.url, max_tokens=9, temperature=0.5))
    assert (refused.retryable, str(refused)) == (False, f"The provider refused the request (400): {error['message']}")
    assert len(raw_server.requests) == 1


def test_nothing_is_learned_from_a_request_that_fails_without_the_parameter_too(raw_server: RawServer) -> None:
    raw_server.script(refusal(message="You wrote: what are stream_options?"))
    raw_server.script(refusal(message="You wrote: what are stream_options?"))
    raw_server.script(response(WHOLE))
    failure(generator(raw_server.url))
    ask(generator(raw_server.url))
    assert ["stream_options" in body(request) for request in raw_server.requests] == [True, False, True]
