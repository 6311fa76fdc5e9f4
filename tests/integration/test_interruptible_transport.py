"""An interrupted attempt of the provider `openai` closes its connection at once, whatever it waits for."""

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.providers import interruption
from shared.providers.openai_generator import OpenAIGenerator
from tests.support.dialects import HEL, WHOLE
from tests.support.openai_client import ask, generator
from tests.support.raw_server import RawServer, response
from tests.support.servers import MAX_WAIT_SECONDS


def _silent(raw_server: RawServer) -> None:
    raw_server.script(then="silence")


def _silent_after_headers(raw_server: RawServer) -> None:
    raw_server.script(response(b""), then="silence")


def _silent_after_text(raw_server: RawServer) -> None:
    raw_server.script(response(HEL), then="silence")


def _pinging(raw_server: RawServer) -> None:
    raw_server.script(response(b": ping\n\n" * 3), then="silence")


class Cancelled(Exception):
    """Why the attempts of these tests are interrupted."""


def assert_interrupted(raw_server: RawServer, made: OpenAIGenerator) -> None:
    """Interrupt an attempt while the server is silent: it ends, and the server sees that the connection is closed."""
    attempt, ended = interruption.Interruption(), threading.Event()

    def run() -> None:
        with interruption.attached(attempt), pytest.raises(Cancelled):
            ask(made)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    _wait(lambda: raw_server.connections and raw_server.connections[-1].is_silent.is_set())
    attempt.set(Cancelled())
    assert ended.wait(MAX_WAIT_SECONDS / 2)  # a timeout would take twice as long
    assert raw_server.connections[-1].is_closed.wait(MAX_WAIT_SECONDS)


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("how", [_silent, _silent_after_headers, _silent_after_text, _pinging])
def test_an_interruption_closes_a_silent_connection(raw_server: RawServer, how: Callable[[RawServer], None]) -> None:
    how(raw_server)
    made = generator(raw_server.url)
    assert_interrupted(raw_server, made)
    raw_server.script(response(WHOLE))
    assert ask(made) == "Hello"  # by another connection
    assert len(raw_server.connections) == 2


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


def test_an_interrupted_attempt_sends_no_request(raw_server: RawServer) -> None:
    attempt = interruption.Interruption()
    attempt.set(Cancelled())
    with interruption.attached(attempt), pytest.raises(Cancelled):
        ask(generator(raw_server.url))
    assert raw_server.requests == []
