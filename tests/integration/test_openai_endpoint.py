"""How the provider `openai` connects: kept-alive connections, paths, refused parameters, and what keeps it away."""

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ProviderError, ProviderOverloadedError, ProviderUnavailableError
from shared.providers import GenerationRequest, Usage, interruption, openai_endpoint, openai_parameters
from shared.providers.openai_endpoint import Endpoint
from shared.providers.openai_generator import OpenAIGenerator, texts_of
from shared.providers.openai_stream import AnswerReader
from tests.support.dialects import DONE, HEL, JSON, LO, STOP, WHOLE, chunk
from tests.support.raw_server import RawServer, response
from tests.support.servers import MAX_WAIT_SECONDS

KEY = "sk-test-4Zb9aQ7kWm2xT0e"


@pytest.fixture(autouse=True)
def nothing_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what tests before have learned of an endpoint, which may have had the same port."""
    monkeypatch.setattr(openai_parameters, "_dialects", {})
    monkeypatch.setattr(openai_endpoint, "_prefixes", {})


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer() as running:
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost and 127.0.0.1, and its key, that nobody else has signed."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command += f" -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout {path} -out {path}.crt"
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def generator(url: str, **options: Any) -> OpenAIGenerator:
    return OpenAIGenerator(Endpoint(url, KEY, timeout_seconds=MAX_WAIT_SECONDS), "m", **options)


def ask(made: OpenAIGenerator) -> str:
    *texts, usage = made.generate(GenerationRequest("Why?"))
    assert isinstance(usage, Usage)
    return "".join(map(str, texts))


def failure(made: OpenAIGenerator) -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        ask(made)
    return raised.value


def refusal(status: str = "400 Bad Request", **error: Any) -> bytes:
    return response(json.dumps({"error": error}).encode(), JSON, status, length=True)


def body(request: bytes) -> dict[str, Any]:
    return json.loads(request.partition(b"\r\n\r\n")[2])


def path(request: bytes) -> str:
    return request.split()[1].decode()


# Interruptions


def _silent(server: RawServer) -> None:
    server.script(then="silence")


def _silent_after_headers(server: RawServer) -> None:
    server.script(response(b""), then="silence")


def _silent_after_text(server: RawServer) -> None:
    server.script(response(HEL), then="silence")


def _pinging(server: RawServer) -> None:
    server.script(response(b": ping\n\n" * 3), then="silence")


class Cancelled(Exception):
    """Why the attempts of these tests are interrupted."""


def assert_interrupted(server: RawServer, made: OpenAIGenerator) -> None:
    """Interrupt an attempt while the server is silent: it ends, and the server sees that the connection is closed."""
    attempt, ended = interruption.Interruption(), threading.Event()

    def run() -> None:
        with interruption.attached(attempt), pytest.raises(Cancelled):
            ask(made)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    _wait(lambda: server.connections and server.connections[-1].is_silent.is_set())
    attempt.set(Cancelled())
    assert ended.wait(MAX_WAIT_SECONDS / 2)  # a timeout would take twice as long
    assert server.connections[-1].is_closed.wait(MAX_WAIT_SECONDS)


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("how", [_silent, _silent_after_headers, _silent_after_text, _pinging])
def test_an_interruption_closes_a_silent_connection(server: RawServer, how: Callable[[RawServer], None]) -> None:
    how(server)
    made = generator(server.url)
    assert_interrupted(server, made)
    server.script(response(WHOLE))
    assert ask(made) == "Hello"  # by another connection
    assert len(server.connections) == 2


@pytest.mark.parametrize("how", [_silent, _silent_after_headers, _silent_after_text])
def test_an_interruption_closes_a_silent_connection_over_tls(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[RawServer], None]
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with RawServer(tls) as server:
        how(server)
        assert_interrupted(server, generator(server.url))


def test_an_interruption_ends_a_tls_handshake() -> None:
    with RawServer(instead_of_tls=b"") as server:
        assert_interrupted(server, generator(server.url))


def test_an_interrupted_attempt_sends_no_request(server: RawServer) -> None:
    attempt = interruption.Interruption()
    attempt.set(Cancelled())
    with interruption.attached(attempt), pytest.raises(Cancelled):
        ask(generator(server.url))
    assert server.requests == []


# Connections


def test_a_kept_alive_connection_that_was_cut_is_replaced_once(server: RawServer) -> None:
    made = generator(server.url)
    server.script(response(WHOLE, length=True), then="keep")
    server.script()  # the server closes the connection when the next request comes
    server.script(response(WHOLE))
    assert [ask(made), ask(made)] == ["Hello", "Hello"]
    assert [len(connection.requests) for connection in server.connections] == [2, 1]


def test_a_new_connection_that_is_cut_is_not_replaced(server: RawServer) -> None:
    server.script(then="reset")
    error = failure(generator(server.url))
    assert (error.retryable, isinstance(error, ProviderUnavailableError)) == (True, False)
    assert str(error) == f"The connection to http://127.0.0.1:{server.port} was interrupted."
    assert len(server.requests) == 1


def test_a_kept_alive_connection_that_is_cut_within_a_response_is_not_replaced(server: RawServer) -> None:
    made = generator(server.url)
    server.script(response(WHOLE, length=True), then="keep")
    server.script(response(b"", length=True)[:20])
    ask(made)
    assert "was interrupted" in str(failure(made))
    assert len(server.requests) == 2


def test_a_response_that_is_complete_leaves_its_connection_to_the_next_request(server: RawServer) -> None:
    made = generator(server.url)
    for _ in range(3):
        server.script(response(WHOLE, length=True), then="keep")
        ask(made)
    server.script(response(b"{}", JSON, "500 Oops", length=True), then="keep")
    failure(made)
    assert [len(connection.requests) for connection in server.connections] == [4]


def test_a_server_that_never_ends_its_response_does_not_hold_the_answer_back(server: RawServer) -> None:
    server.script(response(WHOLE), then="silence")
    assert ask(generator(server.url)) == "Hello"
    assert server.connections[0].is_closed.wait(MAX_WAIT_SECONDS)


# Paths


def test_the_query_of_the_base_url_is_sent_with_each_request(server: RawServer) -> None:
    server.script(response(WHOLE))
    server.script(response(b'{"data": []}', JSON))
    made = generator(f"{server.url}/?api-version=2026-01-01")
    ask(made)
    assert made.endpoint.models() == []
    assert [path(request) for request in server.requests] == [
        "/v1/chat/completions?api-version=2026-01-01",
        "/v1/models?api-version=2026-01-01",
    ]


def test_v1_is_added_and_remembered_if_the_path_is_not_found_without_it(server: RawServer) -> None:
    url = server.url.removesuffix("/v1")
    server.script(refusal("404 Not Found", message="No such page"))
    server.script(response(WHOLE))
    server.script(response(WHOLE))
    assert [ask(generator(url)), ask(generator(url))] == ["Hello", "Hello"]
    found, last = "/v1/chat/completions", "/v1/chat/completions"
    assert [path(request) for request in server.requests] == ["/chat/completions", found, last]


def test_v1_is_not_added_if_that_is_not_found_either(server: RawServer) -> None:
    for message in ("No such model", "No such page"):
        server.script(refusal("404 Not Found", message=message))
    error = failure(generator(server.url.removesuffix("/v1")))
    assert (str(error), error.retryable) == ("The provider refused the request (404): No such model.", False)


def test_a_base_url_may_name_the_whole_path(server: RawServer) -> None:
    server.script(response(WHOLE))
    ask(generator(f"{server.url}/chat/completions"))
    assert path(server.requests[0]) == "/v1/chat/completions"


@pytest.mark.parametrize(
    "listed",
    [{"data": [{"id": "a"}, {"id": "b"}]}, {"models": [{"name": "a"}, {"model": "b"}, {}, 5]}, ["a", {"id": "b"}]],
)
def test_models_are_listed(server: RawServer, listed: Any) -> None:
    server.script(response(json.dumps(listed).encode(), JSON))
    assert generator(server.url).endpoint.models() == ["a", "b"]


def test_a_refused_list_of_models_says_why(server: RawServer) -> None:
    server.script(refusal("401 Unauthorized", message="No"))
    with pytest.raises(ProviderError, match="refused the key"):
        generator(server.url).endpoint.models()


# Redirects


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_that_keeps_the_request_is_followed(server: RawServer, status: str) -> None:
    server.script(response(b"", status=status, headers=f"Location: {server.url}/other\r\n"))
    server.script(response(WHOLE))
    assert ask(generator(server.url)) == "Hello"
    assert server.requests[1].startswith(b"POST /v1/other ")


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other"])
def test_a_redirect_that_changes_the_request_is_the_operators_to_fix(server: RawServer, status: str) -> None:
    """For example from http to https. The answer to the GET would be misleading."""
    server.script(response(b"", status=status, headers=f"Location: {server.url}/other?key=secret\r\n"))
    server.script(response(b"{}", JSON, "405 Method Not Allowed"))
    error = failure(generator(server.url))
    assert str(error).endswith(f" redirects to {server.url}/other. The operator must correct OPENAI_BASE_URL.")
    assert not error.retryable


# The end of an answer


def test_a_response_that_does_not_end_with_its_answer_is_not_waited_for(
    server: RawServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_endpoint, "REST_SECONDS", 0.05)
    server.script(response(HEL + LO + STOP), then="silence")
    started = time.monotonic()
    assert ask(generator(server.url)) == "Hello"
    assert time.monotonic() - started < MAX_WAIT_SECONDS / 2


def test_a_response_whose_answer_goes_on_is_waited_for_as_usual() -> None:
    """Some servers send a finish_reason with each piece."""
    reader, limits = AnswerReader("m", lambda _: ProviderError("")), []
    pieces = iter([chunk("Hel", "stop"), chunk("lo", "stop")])
    assert list(texts_of(pieces, reader, limits.append)) == ["Hel", "lo"]
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
    server: RawServer, refused: str, error: dict[str, str]
) -> None:
    server.script(refusal(**error), then="keep")
    server.script(response(WHOLE))
    server.script(response(WHOLE))
    assert [ask(generator(server.url)), ask(generator(server.url))] == ["Hello", "Hello"]
    assert [refused in body(request) for request in server.requests] == [True, False, False]


def test_validators_name_the_parameter_by_its_place(server: RawServer) -> None:
    detail = [{"loc": ["body", "stream_options"], "msg": "extra fields not permitted"}]
    server.script(response(json.dumps({"detail": detail}).encode(), JSON, "422 No"))
    server.script(response(WHOLE))
    assert ask(generator(server.url)) == "Hello"
    assert "stream_options" not in body(server.requests[1])


def test_a_limit_of_tokens_is_renamed_if_the_server_wants_that(server: RawServer) -> None:
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    server.script(refusal(message=message, param="max_tokens"))
    server.script(response(WHOLE))
    server.script(response(WHOLE))
    for _ in range(2):
        ask(generator(server.url, max_tokens=9))
    sent = [body(request) for request in server.requests]
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
def test_what_would_change_the_answer_is_not_left_out(server: RawServer, error: dict[str, str]) -> None:
    server.script(refusal(**error))
    refused = failure(generator(server.url, max_tokens=9, temperature=0.5))
    assert (refused.retryable, str(refused)) == (False, f"The provider refused the request (400): {error['message']}")
    assert len(server.requests) == 1


def test_nothing_is_learned_from_a_request_that_fails_all_the_same(server: RawServer) -> None:
    server.script(refusal(message="You wrote: what are stream_options?"))
    server.script(refusal(message="You wrote: what are stream_options?"))
    server.script(response(WHOLE))
    failure(generator(server.url))
    ask(generator(server.url))
    assert ["stream_options" in body(request) for request in server.requests] == [True, False, True]


# Causes


def test_a_refused_connection_names_the_endpoint_and_no_secret() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = failure(generator(f"http://me:secret@127.0.0.1:{port}/v1?api-key=secret"))
    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == f"Connection refused by http://127.0.0.1:{port}."


def test_a_host_that_does_not_exist_is_unavailable() -> None:
    error = failure(generator("http://no-such-host.invalid/v1"))
    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == "The name of http://no-such-host.invalid was not found (DNS)."


def test_a_refusing_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("http_proxy", f"http://me:secret@127.0.0.1:{port}")
    monkeypatch.setenv("no_proxy", "")
    error = failure(generator("http://model.invalid/v1"))
    assert isinstance(error, ProviderUnavailableError)
    assert str(error) == f"Connection refused by the proxy 127.0.0.1:{port}."


@pytest.mark.parametrize("problem", ["unknown authority", "another name"])
def test_a_certificate_that_does_not_fit_is_reported_at_once(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    if problem == "another name":
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with RawServer(tls, host="127.0.0.2") as server:
        error = failure(generator(server.url))
        assert (error.retryable, isinstance(error, ProviderUnavailableError)) == (False, False)
        assert str(error).startswith(f"The certificate of https://127.0.0.2:{server.port} does not fit: ")
        assert "OPENAI_BASE_URL" in str(error)
        assert ("not valid for '127.0.0.2'" if problem == "another name" else "self-signed") in str(error)


def test_a_server_that_speaks_no_tls_is_unavailable() -> None:
    with RawServer(instead_of_tls=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        error = failure(generator(server.url))
        assert isinstance(error, ProviderUnavailableError)
        assert str(error) == f"No TLS connection to https://127.0.0.1:{server.port}: wrong version number."


@pytest.mark.parametrize(
    ("status", "error", "kind", "says"),
    [
        (
            "503 No",
            {"message": "Loading model"},
            ProviderUnavailableError,
            "is loading its model (503): Loading model.",
        ),
        ("503 No", {"message": "Busy"}, ProviderOverloadedError, "accepts no requests at the moment (503): Busy."),
        ("429 No", {"message": "Slow down"}, ProviderOverloadedError, "at the moment (429): Slow down."),
        ("529 No", {}, ProviderOverloadedError, "accepts no requests at the moment (529)."),
        ("502 No", {}, ProviderUnavailableError, "accepts no requests at the moment (502)."),
        ("429 No", {"code": "insufficient_quota"}, ProviderUnavailableError, "quota is used up (429)."),
    ],
)
def test_a_refusal_because_of_load_is_told_apart(
    server: RawServer, status: str, error: dict[str, str], kind: type, says: str
) -> None:
    server.script(refusal(status, **error))
    raised = failure(generator(server.url))
    assert type(raised) is kind
    assert says in str(raised)


@pytest.mark.parametrize(
    "words",
    [
        f"at https://x.example/v1?api-key={KEY[3:]}&x=1",
        "at https://x.example/v1?subscription_key=4Zb9aQ7kWm2x",
        "at postgres://me:4Zb9aQ7kWm2x@db/x",
        "got eyJhbGciOi.4Zb9aQ7kWm2x.x and AIza4Zb9aQ7kWm2x",
        "x" * 1_990 + f" {KEY}",
    ],
)
def test_keys_in_urls_are_not_quoted(server: RawServer, words: str) -> None:
    server.script(refusal(message=words))
    assert "4Zb9aQ7kWm2x" not in str(failure(generator(server.url)))


def test_a_key_in_the_base_url_is_not_quoted(server: RawServer) -> None:
    server.script(refusal(message="The key 4Zb9aQ7kWm2x is not valid."))
    error = failure(generator(f"{server.url}?subscription-key=4Zb9aQ7kWm2x&api-version=2026-01-01"))
    assert str(error) == "The provider refused the request (400): The key … is not valid."


def test_many_threads_share_an_endpoint_with_a_connection_each(server: RawServer) -> None:
    made, count = generator(server.url), 30
    for _ in range(2 * count):
        server.script(response(WHOLE, length=True), then="keep")
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
    assert len(server.requests) == 2 * count
    assert len(server.connections) <= 2 * count - 1  # some were used again


def test_the_end_mark_alone_is_no_answer(server: RawServer) -> None:
    server.script(response(DONE))
    assert failure(generator(server.url)).retryable
