"""The generator `openai`, against a real server that implements OpenAI's API, also badly."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from shared.errors import ProviderError, ProviderUnavailableError
from shared.providers import Exchange, GenerationRequest, Generator, Usage
from shared.providers.factory import make_generator
from shared.providers.openai_errors import MAX_QUOTED
from shared.retry_after import MAX_RETRY_AFTER_SECONDS
from shared.settings import SettingsError
from tests.support.openai_replies import WORDS, Gate, Reply
from tests.support.openai_server import MODEL, OpenAIServer
from tests.support.processes import free_port
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, environment_of, make_settings

KEY = "sk-test-4Zb9aQ7kWm2xT0e"
ANSWER = "".join(WORDS)
Make = Callable[..., Generator]


@pytest.fixture(scope="module")
def running() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def server(running: OpenAIServer) -> OpenAIServer:
    running.reset()
    return running


def settings_for(url: str, **changes: object):
    given = {"openai_base_url": url, "openai_api_key": KEY, "openai_model": "tiny"} | changes
    return make_settings(generator="openai", **given)


@pytest.fixture
def make(server: OpenAIServer) -> Make:
    return lambda **changes: make_generator(settings_for(server.url, **changes))


@pytest.fixture(scope="module")
def shared_generator(running: OpenAIServer) -> Generator:
    return make_generator(settings_for(running.url))


@pytest.fixture
def generator(server: OpenAIServer, shared_generator: Generator) -> Generator:
    """One generator for all tests, because creating a client takes 0.2 s."""
    return shared_generator


def ask(generator: Generator, prompt: str = "Why tides?", **more: object) -> tuple[str, Usage]:
    """Return the whole answer and the usage, which comes last."""
    *chunks, usage = generator.generate(GenerationRequest(prompt, **more))
    assert all(isinstance(chunk, str) for chunk in chunks)
    assert isinstance(usage, Usage)
    return "".join(chunks), usage


def failure(generator: Generator, prompt: str = "Why tides?") -> ProviderError:
    with pytest.raises(ProviderError) as raised:
        ask(generator, prompt)
    assert str(raised.value).endswith((".", "!", "…"))
    return raised.value


# Requests and answers


def test_chunks_are_yielded_as_the_server_sends_them(server: OpenAIServer, generator: Generator) -> None:
    gate = Gate()
    server.script(Reply(gate=gate))
    parts = generator.generate(GenerationRequest("Why tides?"))
    for word in WORDS:
        gate.release()
        assert next(parts) == word
    assert next(parts) == Usage(MODEL, 2, len(WORDS), "stop")
    assert next(parts, None) is None


def test_a_request_contains_model_prompt_and_key_and_no_unset_options(
    server: OpenAIServer, generator: Generator
) -> None:
    ask(generator)
    (request,) = server.requests
    assert request.headers["Authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Why tides?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_system_prompt_comes_first_and_earlier_exchanges_precede_the_prompt(
    server: OpenAIServer, make: Make
) -> None:
    ask(make(openai_system_prompt="Be brief."), "And now?", history=[Exchange("One?", "1."), Exchange("Two?", "2.")])
    assert [(message["role"], message["content"]) for message in server.requests[0].body["messages"]] == [
        ("system", "Be brief."),
        ("user", "One?"),
        ("assistant", "1."),
        ("user", "Two?"),
        ("assistant", "2."),
        ("user", "And now?"),
    ]


def test_temperature_and_max_tokens_are_sent_if_they_are_set(server: OpenAIServer, make: Make) -> None:
    ask(make(openai_temperature=0, openai_max_tokens=99))
    assert server.requests[0].body["temperature"] == 0
    assert server.requests[0].body["max_tokens"] == 99


def test_openais_own_endpoint_gets_the_new_name_of_max_tokens(
    server: OpenAIServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1"))  # so that the request reaches our server
    monkeypatch.setenv("no_proxy", "")
    ask(make(openai_base_url="http://api.openai.com/v1", openai_max_tokens=99))
    assert server.requests[0].body["max_completion_tokens"] == 99
    assert "max_tokens" not in server.requests[0].body


def test_every_attempt_has_the_same_idempotency_key(server: OpenAIServer, generator: Generator) -> None:
    request = GenerationRequest("once fail", idempotency_key="promptwire-7")
    with pytest.raises(ProviderError):
        list(generator.generate(request))
    assert "".join(part for part in generator.generate(request) if isinstance(part, str)) == ANSWER
    assert [received.headers["Idempotency-Key"] for received in server.requests] == ["promptwire-7"] * 2


def test_the_client_does_not_retry_by_itself(server: OpenAIServer, generator: Generator) -> None:
    failure(generator, "fail")
    assert len(server.requests) == 1


@pytest.mark.parametrize("where", ["own chunk", "last chunk"])
def test_usage_is_found_in_any_chunk(server: OpenAIServer, generator: Generator, where: str) -> None:
    server.script(Reply(usage=where))
    assert ask(generator) == (ANSWER, Usage(MODEL, 2, 4, "stop"))


def test_the_model_is_known_even_if_the_server_reports_no_usage(server: OpenAIServer, generator: Generator) -> None:
    server.script(Reply(usage="none"))
    assert ask(generator) == (ANSWER, Usage(MODEL, None, None, "stop"))


def test_a_refusal_of_the_model_is_an_answer(server: OpenAIServer, generator: Generator) -> None:
    server.script(Reply(["I cannot ", "help with that."], key="refusal"))
    assert ask(generator)[0] == "I cannot help with that."


def test_an_answer_that_reached_max_tokens_is_complete(server: OpenAIServer, generator: Generator) -> None:
    server.script(Reply(finish_reason="length"))
    assert ask(generator)[0] == ANSWER


def test_an_answer_cut_by_a_content_filter_is_kept_unless_it_is_empty(
    server: OpenAIServer, generator: Generator
) -> None:
    server.script(Reply(finish_reason="content_filter"), Reply([], finish_reason="content_filter"))
    assert ask(generator)[0] == ANSWER
    error = failure(generator)
    assert not error.retryable
    assert "content filter" in str(error)


def test_a_server_without_keys_works_without_one(server: OpenAIServer, make: Make) -> None:
    assert ask(make(openai_api_key=""))[0] == ANSWER


def test_user_and_password_in_the_url_are_sent_as_basic_authentication(server: OpenAIServer) -> None:
    url = server.url.replace("://", "://me:pa%20ss@")
    ask(make_generator(settings_for(url, openai_api_key="")))
    assert server.requests[0].headers["Authorization"] == "Basic bWU6cGEgc3M="


def test_closing_the_iterator_closes_the_connection_immediately(server: OpenAIServer, generator: Generator) -> None:
    gate = Gate()
    server.script(Reply(gate=gate))
    gate.release()
    parts = generator.generate(GenerationRequest("Why tides?"))
    assert next(parts) == WORDS[0]
    assert not server.requests[0].abandoned.is_set()
    parts.close()
    assert server.requests[0].abandoned.wait(timeout=20)


# Failures


@pytest.mark.parametrize("status", [429, 502, 503, 529])
def test_an_overloaded_provider_is_unavailable(server: OpenAIServer, generator: Generator, status: int) -> None:
    server.script(Reply(status=status, headers={"Retry-After": "7"}), Reply(status=status))
    for seconds in (7, None):
        error = failure(generator)
        assert isinstance(error, ProviderUnavailableError)
        assert error.retry_after == seconds


@pytest.mark.parametrize(
    ("headers", "least", "most"),
    [
        ({"Retry-After": "2.5"}, 2.5, 2.5),
        ({"retry-after-ms": "1500", "Retry-After": "2"}, 1.5, 1.5),
        ({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=20), usegmt=True)}, 3_600, 72_000),
        ({"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}, 0, 0),
        ({"Retry-After": "-3"}, 0, 0),
        ({"Retry-After": "1e300"}, MAX_RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS),
        ({"Retry-After": "inf"}, None, None),
        ({"Retry-After": "1 Jan 2026 00:00:00 +99999999999999"}, None, None),
        ({"Retry-After": "1 Jan 2026 99999999999999999999:00:00 GMT"}, None, None),
        ({"Retry-After": "soon"}, None, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    server: OpenAIServer, generator: Generator, headers: dict[str, str], least: float | None, most: float | None
) -> None:
    server.script(Reply(status=429, headers=headers))
    error = failure(generator)
    assert isinstance(error, ProviderUnavailableError)
    assert error.retry_after is None if least is None else least <= error.retry_after <= most


def test_any_server_error_with_retry_after_means_unavailable(server: OpenAIServer, generator: Generator) -> None:
    server.script(Reply(status=500, headers={"Retry-After": "1"}))
    error = failure(generator)
    assert isinstance(error, ProviderUnavailableError)
    assert error.retry_after == 1


def test_the_error_says_if_the_quota_is_used_up(server: OpenAIServer, generator: Generator) -> None:
    server.script(Reply(status=429, code="insufficient_quota"))
    error = failure(generator)
    assert isinstance(error, ProviderUnavailableError)
    assert "quota" in str(error)


def test_a_provider_that_cannot_be_reached_is_unavailable_until_it_is_back(
    server: OpenAIServer, generator: Generator
) -> None:
    assert ask(generator)[0] == ANSWER
    with server.stopped():
        assert isinstance(failure(generator), ProviderUnavailableError)
    assert ask(generator)[0] == ANSWER


@pytest.mark.parametrize("status", [408, 409, 425, 500, 504, 520])
def test_transient_errors_are_retryable(server: OpenAIServer, generator: Generator, status: int) -> None:
    server.script(Reply(status=status))
    error = failure(generator)
    assert error.retryable
    assert not isinstance(error, ProviderUnavailableError)
    assert str(status) in str(error)


@pytest.mark.parametrize(
    "prompt", ["stop 5", "close 5", "reset 5", "garbage", "error", "page", "slow 30", "hang 2"], ids=str
)
def test_an_interrupted_or_missing_answer_is_retryable(make: Make, prompt: str) -> None:
    error = failure(make(openai_timeout_seconds=0.3), prompt)
    assert error.retryable
    assert not isinstance(error, ProviderUnavailableError)


@pytest.mark.parametrize(
    "body", ["5", "[]", '{"choices": 5}', '{"choices": [null]}', '{"choices": [{"delta": {"content": 5}}]}']
)
def test_unexpected_json_is_retryable(server: OpenAIServer, generator: Generator, body: str) -> None:
    server.script(Reply(body=f"data: {body}\n\n", headers={"Content-Type": "text/event-stream"}))
    assert "does not follow OpenAI's API" in str(failure(generator))


def test_the_message_of_an_error_event_is_quoted(server: OpenAIServer, generator: Generator) -> None:
    server.script(Reply(then="error", message="The GPU is on fire"))
    assert str(failure(generator)) == "The provider interrupted its answer: The GPU is on fire."


def test_the_timeout_also_applies_to_error_pages(make: Make, server: OpenAIServer) -> None:
    server.script(Reply(status=500, body="", headers={"Content-Length": "100"}))
    says = "The provider sent nothing for too long: 0.3 s (OPENAI_TIMEOUT_SECONDS)."
    assert str(failure(make(openai_timeout_seconds=0.3))) == says


def test_an_answer_is_complete_once_its_finish_reason_has_arrived(server: OpenAIServer, make: Make) -> None:
    chunk = '{"model": "m", "choices": [{"delta": {"content": "Yes."}, "finish_reason": "stop"}]}'
    server.script(Reply(body=f"data: {chunk}\n\ndata: {{", headers={"Content-Length": "200"}))
    server.script(Reply(body=f"data: {chunk}\n\ndata: {{\n\n"))
    generator = make(openai_timeout_seconds=0.3)
    assert ask(generator) == ask(generator) == ("Yes.", Usage("m", finish_reason="stop"))


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(status=400, message="No vision"), "The provider refused the request (400): No vision."),
        (Reply(status=404, message="No model `x`!"), "The provider refused the request (404): No model `x`!"),
        (Reply(status=404, body='{"error": "no model"}'), "The provider refused the request (404): no model."),
        (Reply(status=422, body='{"detail": "too long"}'), "The provider refused the request (422): too long."),
        (Reply(status=422, body='{"detail": [{}]}'), "The provider refused the request (422)."),
        (Reply(status=404, body="<html>nginx</html>"), "The provider refused the request (404)."),
        (Reply(status=413, body=" "), "The provider refused the request (413)."),
    ],
)
def test_a_permanent_refusal_is_quoted_in_the_providers_words(
    server: OpenAIServer, generator: Generator, reply: Reply, says: str
) -> None:
    server.script(reply)
    error = failure(generator)
    assert not error.retryable
    assert str(error) == says


def test_a_long_message_of_the_provider_is_cut(server: OpenAIServer, generator: Generator) -> None:
    server.script(Reply(status=400, message="no " * 10_000))
    assert len(str(failure(generator))) < MAX_QUOTED + 100


# Secrets


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_reported_as_the_operators_to_fix(
    server: OpenAIServer, generator: Generator, status: int
) -> None:
    server.script(Reply(status=status, code="invalid_api_key"))
    error, address = failure(generator), server.url.removesuffix("/v1")
    assert not error.retryable
    assert str(error).startswith(f"The provider at {address} refused the key ({status}): Incorrect API key provided: …")
    assert str(error).endswith(" The operator must check OPENAI_API_KEY.")


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(
    "words",
    [f"got {KEY}", "got sk-test-****0e", f"Authorization: Bearer {KEY[3:]}", "got sk-proj-tail", "got ab****yz"],
)
def test_keys_are_removed_from_the_providers_messages(
    server: OpenAIServer, generator: Generator, status: int, words: str
) -> None:
    server.script(Reply(status=status, message=words, then="error"))
    error = str(failure(generator))
    assert not any(part in error for part in (KEY, KEY[3:], "sk-test", "0e", "tail", "ab*", "yz"))
    assert ("got" in error) or ("Authorization" in error)


@pytest.mark.parametrize("prompt", ["say 3", "busy 1", "forbid", "refuse", "close 1"])
def test_no_library_logs_the_key_or_the_password(
    server: OpenAIServer, caplog: pytest.LogCaptureFixture, prompt: str
) -> None:
    for library in (None, "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, library)
    for url in (server.url, server.url.replace("://", "://me:passw0rd@")):
        generator = make_generator(settings_for(url))
        try:
            ask(generator, prompt)
        except ProviderError as error:
            logging.getLogger("test").exception("failed", exc_info=error)
    logged = caplog.text + repr([(record.msg, record.args) for record in caplog.records])
    assert "httpcore" in logged
    assert not any(secret in logged for secret in ("sk-test", KEY[3:], "passw0rd", "bWU6cGFzc3cwcmQ"))


_WORKER_LOGGING = """
from shared.telemetry.logs import configure_logging
from shared.providers import GenerationRequest
from shared.providers.factory import make_generator
from shared.settings import load_settings
import logging

settings = load_settings()
configure_logging(settings)
list(make_generator(settings).generate(GenerationRequest("Why tides?")))
logging.getLogger("test").debug("it was logged")
"""


def test_our_debug_logs_contain_nothing_of_the_requests(server: OpenAIServer) -> None:
    settings = settings_for(server.url.replace("://", "://me:passw0rd@"), log_level="DEBUG")
    environment = os.environ | environment_of(settings)
    ran = subprocess.run(
        [sys.executable, "-c", _WORKER_LOGGING],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=MAX_WAIT_SECONDS,
    )
    assert ran.returncode == 0, ran.stderr
    assert "it was logged" in ran.stderr
    assert not any(word in ran.stderr for word in (KEY, "passw0rd", "127.0.0.1", "chat/completions"))


# Name and settings


def test_the_name_covers_everything_that_answers_depend_on_and_no_secret(make: Make, server: OpenAIServer) -> None:
    name = make().name
    assert name.startswith("openai:tiny:")
    assert make(openai_api_key="other", openai_timeout_seconds=1).name == name
    assert make(openai_base_url=server.url.replace("://", "://me:password@") + "/").name == name
    others = [
        make(openai_model="huge").name,
        make(openai_base_url=f"http://127.0.0.1:{free_port()}/v1").name,
        make(openai_system_prompt="Be brief.").name,
        make(openai_temperature=0).name,
        make(openai_max_tokens=5).name,
    ]
    assert len({name, *others}) == 6
    assert make().max_batch_size == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"openai_model": " "}, "OPENAI_MODEL is not set"),
        ({"openai_base_url": "https://api.openai.com/v1", "openai_api_key": " "}, "OPENAI_API_KEY is not set"),
        ({"openai_base_url": "https://eu.api.openai.com/v1", "openai_api_key": ""}, "OPENAI_API_KEY is not set"),
        ({"openai_api_key": "sk-\nsecret"}, "OPENAI_API_KEY contains characters"),
        ({"openai_api_key": "sk-sécret"}, "OPENAI_API_KEY contains characters"),
    ],
)
def test_invalid_settings_are_refused_with_a_message_that_says_what_to_do(
    make: Make, changes: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        make(**changes)
    assert "secret" not in str(raised.value)
    assert "sécret" not in str(raised.value)


def test_the_library_is_imported_only_if_it_is_used() -> None:
    code = "import sys, worker.app, api.app; sys.exit('httpx' in sys.modules)"
    settings = make_settings()
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment_of(settings), cwd=ROOT, timeout=MAX_WAIT_SECONDS
    )
    assert ran.returncode == 0
