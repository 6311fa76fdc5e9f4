"""What keeps the provider `openai` from an answer is named, without secrets."""

import socket
import ssl
from pathlib import Path

import pytest

from shared.errors import ProviderOverloadedError, ProviderUnavailableError
from tests.support.dialects import DONE
from tests.support.openai_client import KEY, failure, generator, refusal
from tests.support.raw_server import RawServer, response


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
def test_an_invalid_certificate_is_reported_at_once(
    tls: ssl.SSLContext, certificate: Path, monkeypatch: pytest.MonkeyPatch, problem: str
) -> None:
    if problem == "another name":
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with RawServer(tls, host="127.0.0.2") as server:
        error = failure(generator(server.url))
        assert (error.retryable, isinstance(error, ProviderUnavailableError)) == (False, False)
        assert str(error).startswith(f"The certificate of https://127.0.0.2:{server.port} is invalid: ")
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
    raw_server: RawServer, status: str, error: dict[str, str], kind: type, says: str
) -> None:
    raw_server.script(refusal(status, **error))
    raised = failure(generator(raw_server.url))
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
def test_keys_in_urls_are_not_quoted(raw_server: RawServer, words: str) -> None:
    raw_server.script(refusal(message=words))
    assert "4Zb9aQ7kWm2x" not in str(failure(generator(raw_server.url)))


def test_a_key_in_the_base_url_is_not_quoted(raw_server: RawServer) -> None:
    raw_server.script(refusal(message="The key 4Zb9aQ7kWm2x is not valid."))
    error = failure(generator(f"{raw_server.url}?subscription-key=4Zb9aQ7kWm2x&api-version=2026-01-01"))
    assert str(error) == "The provider refused the request (400): The key … is not valid."


def test_the_end_mark_alone_is_no_answer(raw_server: RawServer) -> None:
    raw_server.script(response(DONE))
    assert failure(generator(raw_server.url)).retryable
