"""Prompts answered by a server with OpenAI's protocol, through API and worker processes."""

from collections.abc import Iterator

import pytest

from shared.messaging.queue import make_celery
from shared.settings import Settings
from tests.support import processes
from tests.support.events import follow
from tests.support.openai_server import MODEL, OpenAIServer
from tests.support.processes import RemoteUser
from tests.support.servers import Servers, wait_until

KEY = "sk-test-1234567890abcdef"


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="module")
def settings(servers: Servers, provider: OpenAIServer) -> Iterator[Settings]:
    with servers.database() as name:
        yield servers.settings(
            name,
            generator="openai",
            openai_base_url=provider.url,
            openai_api_key=KEY,
            openai_model="test-model",
            openai_timeout_seconds=2,
            reaper_seconds=0.2,
            retry_backoff_seconds=0.2,
        )


@pytest.fixture(scope="module", autouse=True)
def at_work(settings: Settings) -> Iterator[None]:
    with processes.worker(settings):
        yield


@pytest.fixture
def alice(url: str) -> RemoteUser:
    return RemoteUser(url)


def test_a_socket_receives_an_answer_as_it_is_generated(alice: RemoteUser, provider: OpenAIServer) -> None:
    gate = provider.gate("socket")
    with alice.join() as room:
        room.receive()
        prompt_id = alice.submit("held socket 3")
        for index, word in enumerate(("w0 ", "w1 ", "w2 ")):
            gate.release()
            delta = room.receive()
            assert (delta["type"], delta["index"], delta["text"]) == ("prompt.delta", index, word)
        ended = room.receive()
    assert (ended["type"], ended["id"], ended["response_text"]) == ("prompt.completed", prompt_id, "w0 w1 w2 ")
    assert ended["provider_model"] == MODEL
    assert ended["usage"]["total_tokens"] == ended["usage"]["prompt_tokens"] + 3
    shown = alice.show(prompt_id)
    assert (shown["provider_model"], shown["usage"]) == (MODEL, ended["usage"])


def test_a_text_stream_receives_an_answer_as_it_is_generated(alice: RemoteUser, provider: OpenAIServer) -> None:
    gate = provider.gate("followed")
    prompt_id = alice.submit("held followed 3", websocket=False)
    with follow(alice, prompt_id) as stream:
        gate.release()
        assert stream.next().data["text"] == "w0 "
        gate.release(2)
        *deltas, end = list(stream)
    assert "".join(delta.data["text"] for delta in deltas) == "w1 w2 "
    assert (end.kind, end.data["response_text"]) == ("prompt.completed", "w0 w1 w2 ")


def test_a_429_is_retried_after_the_time_that_the_provider_asks_for(alice: RemoteUser, provider: OpenAIServer) -> None:
    prompt_id = alice.submit("once busy 1.5")
    shown = alice.wait(prompt_id)
    first, second = _calls_for(provider, prompt_id)
    assert shown["status"] == "completed"
    assert second.arrived - first.arrived >= 1.5


@pytest.mark.parametrize(
    "trouble", ["fail 500", "fail 503", "reset 3", "close 3", "stop 3", "garbage 2", "error 2", "hang 1", "page"]
)
def test_a_temporary_failure_is_retried_with_the_same_idempotency_key(
    alice: RemoteUser, provider: OpenAIServer, trouble: str
) -> None:
    prompt_id = alice.submit(f"once {trouble}")
    shown = alice.wait(prompt_id)
    assert (shown["status"], shown["attempt"], shown["error"]) == ("completed", 2, None)
    calls = _calls_for(provider, prompt_id)
    assert len(calls) == 2
    assert len({call.headers["Idempotency-Key"] for call in calls}) == 1


@pytest.mark.parametrize(
    ("trouble", "error"), [("refuse", "The provider refused the request (400): This model has no vision."),
                          ("forbid", "The provider at http://127.0.0.1:")]
)  # fmt: skip
def test_a_permanent_failure_fails_the_prompt_at_once_with_the_reason(
    alice: RemoteUser, provider: OpenAIServer, trouble: str, error: str
) -> None:
    prompt_id = alice.submit(trouble)
    shown = alice.wait(prompt_id)
    assert (shown["status"], shown["attempt"]) == ("failed", 1)
    assert shown["error"].startswith(error)
    assert KEY not in shown["error"]


def test_a_prompt_that_fails_in_every_attempt_fails_after_the_last(alice: RemoteUser) -> None:
    shown = alice.wait(alice.submit("fail 500"))
    assert (shown["status"], shown["attempt"]) == ("failed", 5)
    assert shown["error"] == "The provider failed (500): Something is wrong."


def test_a_provider_may_take_a_second_until_the_first_token(alice: RemoteUser) -> None:
    assert alice.wait(alice.submit("slow 1"))["status"] == "completed"


def test_while_the_provider_is_unavailable_prompts_wait_and_workers_do_not(
    alice: RemoteUser, provider: OpenAIServer, settings: Settings
) -> None:
    inspect = make_celery(settings).control.inspect(timeout=1)
    with provider.stopped():
        ids = [alice.submit(f"prompt {i}") for i in range(10)]
        wait_until(lambda: not any(_is_under_way(alice, prompt_id) for prompt_id in ids), what="no work")
        wait_until(lambda: inspect.active() == {"worker@test": []}, what="free workers")
    shown = [alice.wait(prompt_id) for prompt_id in ids]
    assert [each["status"] for each in shown] == ["completed"] * 10
    assert len({each["id"] for each in shown}) == 10


def test_history_and_cache_work_with_the_openai_generator(alice: RemoteUser, provider: OpenAIServer) -> None:
    first = alice.wait(alice.submit("the tides of the ocean"))
    copy = alice.wait(alice.submit("the tides of the ocean", cache=True))
    assert (copy["cached_from"], copy["response_text"]) == (first["id"], first["response_text"])
    assert _calls_for(provider, copy["id"]) == []
    informed = alice.wait(alice.submit("more of the tides", history=1))
    (call,) = _calls_for(provider, informed["id"])
    assert [message["role"] for message in call.body["messages"]] == ["user", "assistant", "user"]
    assert call.body["messages"][1]["content"] == first["response_text"]


def _calls_for(provider: OpenAIServer, prompt_id: int) -> list:
    key = f"promptwire-{prompt_id}-"
    return [seen for seen in provider.requests if seen.headers.get("Idempotency-Key", "").startswith(key)]


def _is_under_way(user: RemoteUser, prompt_id: int) -> bool:
    return user.show(prompt_id)["status"] == "processing"
