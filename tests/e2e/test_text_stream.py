"""A prompt's text as server-sent events: joined late, interrupted, resumed at another process, to the end."""

import dataclasses
import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from api.realtime.text_stream import Position
from shared.errors import ProviderError
from shared.messaging.redis import make_redis
from shared.providers import GenerationRequest
from shared.settings import Settings
from tests.support import lifecycle, processes
from tests.support.events import EventStream, follow
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until
from worker.deltas import INTERVAL_SECONDS
from worker.pipeline import Pipeline

WORDS = [f"wörd{i} " for i in range(1, 21)]


class Stepwise:
    """Yields the next word for each `let`."""

    name, max_batch_size = "stepwise", 1

    def __init__(self) -> None:
        self._steps = threading.Semaphore(0)
        self.said = 0

    def let(self, count: int) -> None:
        for _ in range(count):
            self._steps.release()

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        for word in WORDS:
            assert self._steps.acquire(timeout=MAX_WAIT_SECONDS)
            threading.Event().wait(1.1 * INTERVAL_SECONDS)  # so that each word is an event
            self.said += 1
            yield word


@pytest.fixture
def alice(url: str) -> RemoteUser:
    return RemoteUser(url)


@pytest.fixture
def generator() -> Stepwise:
    return Stepwise()


@pytest.fixture
def running(alice: RemoteUser, worker: Pipeline, generator: Stepwise) -> Iterator[int]:
    """A prompt that is being answered."""
    prompt_id = alice.submit(websocket=False)
    work = threading.Thread(target=dataclasses.replace(worker, generator=generator).process, args=[1])
    work.start()
    yield prompt_id
    generator.let(len(WORDS))
    work.join(MAX_WAIT_SECONDS)


def read(stream: EventStream, words: int) -> tuple[str, str]:
    """Read until this many words have come. Returns them and the last event's id."""
    text, last = "", ""
    for event in stream:
        assert event.kind == "prompt.delta"
        text, last = text + event.data["text"], event.id
        if text.count(" ") >= words:
            return text, last
    raise AssertionError("the stream has ended")


def rest(stream: EventStream) -> tuple[str, str]:
    """All the text until the end, and what kind of an end it is; nothing comes after that."""
    text = ""
    events = list(stream)
    for event in events[:-1]:
        assert event.kind == "prompt.delta"
        text += event.data["text"]
    return text, events[-1].kind


def test_text_comes_as_it_is_generated_and_then_the_end(alice: RemoteUser, running: int, generator: Stepwise) -> None:
    with follow(alice, running) as stream:
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        assert stream.response.headers["Cache-Control"] == "no-store"
        for word in WORDS[:5]:
            generator.let(1)
            event = stream.next()
            assert (event.kind, event.data["text"]) == ("prompt.delta", word)
        generator.let(15)
        *deltas, end = list(stream)
    assert "".join(delta.data["text"] for delta in deltas) == "".join(WORDS[5:])
    assert (end.kind, end.data["type"], end.data["response_text"]) == (
        "prompt.completed", "prompt.completed", "".join(WORDS),
    )  # fmt: skip
    assert end.data == alice.show(running) | {"type": "prompt.completed"}


def test_whoever_joins_late_sees_all_of_it(alice: RemoteUser, running: int, generator: Stepwise) -> None:
    generator.let(7)
    with follow(alice, running) as early:
        read(early, 7)
        with follow(alice, running) as late:
            assert read(late, 7)[0] == "".join(WORDS[:7])
            generator.let(13)
            assert rest(late) == ("".join(WORDS[7:]), "prompt.completed")


def test_a_stream_resumed_at_another_process_continues_where_it_was_interrupted(
    alice: RemoteUser, running: int, generator: Stepwise, settings: Settings
) -> None:
    generator.let(5)
    with follow(alice, running) as stream:
        text, last = read(stream, 5)
    assert text == "".join(WORDS[:5])
    generator.let(5)
    with processes.api(settings) as elsewhere, follow(alice, running, last, url=elsewhere) as stream:
        assert read(stream, 5)[0] == "".join(WORDS[5:10])
        generator.let(10)
        assert rest(stream) == ("".join(WORDS[10:]), "prompt.completed")


def test_a_stream_resumed_after_the_end_gets_the_rest_from_the_stored_answer(
    alice: RemoteUser, running: int, generator: Stepwise, servers: Servers
) -> None:
    generator.let(5)
    with follow(alice, running) as stream:
        _, last = read(stream, 5)
    generator.let(15)
    alice.wait(running)
    with make_redis(servers.settings("any")) as redis:
        redis.flushall()
    with follow(alice, running, last) as stream:
        assert rest(stream) == ("".join(WORDS[5:]), "prompt.completed")


def test_the_stream_of_a_finished_prompt_has_all_its_text(alice: RemoteUser, worker: Pipeline) -> None:
    prompt_id = alice.submit("Explain tides")
    worker.process(1)
    with follow(alice, prompt_id) as stream:
        assert rest(stream) == (alice.show(prompt_id)["response_text"], "prompt.completed")


def test_a_stream_resumed_after_its_last_event_is_204(alice: RemoteUser, worker: Pipeline) -> None:
    prompt_id = alice.submit("Explain tides")
    worker.process(1)
    with follow(alice, prompt_id) as stream:
        last = list(stream)[-1].id
    response = alice.http.get(f"/prompts/{prompt_id}/stream/", headers={"Last-Event-ID": last})
    assert (response.status_code, response.content) == (204, b"")


def test_text_that_redis_has_lost_comes_with_the_end(
    alice: RemoteUser, running: int, generator: Stepwise, servers: Servers
) -> None:
    with follow(alice, running) as stream:
        generator.let(3)
        text, _ = read(stream, 3)
        with make_redis(servers.settings("any")) as redis:
            redis.delete(f"promptwire:text:{running}:1")
        generator.let(17)
        more, end = rest(stream)
    assert (text + more, end) == ("".join(WORDS), "prompt.completed")


@pytest.mark.parametrize(
    ("method", "path", "kind"), [("POST", "cancel/", "prompt.cancelled"), ("DELETE", "", "prompt.deleted")]
)
def test_a_cancelled_or_deleted_prompt_ends_the_stream(
    alice: RemoteUser, running: int, generator: Stepwise, method: str, path: str, kind: str
) -> None:
    with follow(alice, running) as stream:
        generator.let(2)
        read(stream, 2)
        alice.http.request(method, f"/prompts/{running}/{path}").raise_for_status()
        end = stream.next()
    assert (end.kind, end.data["type"], end.data["id"]) == (kind, kind, running)


def test_a_failed_prompt_ends_the_stream(alice: RemoteUser, worker: Pipeline) -> None:
    class Refuses(Stepwise):
        def generate(self, request: GenerationRequest) -> Iterator[str]:
            raise ProviderError("no such model", retryable=False)

    prompt_id = alice.submit()
    with follow(alice, prompt_id) as stream:
        dataclasses.replace(worker, generator=Refuses()).process(1)
        end = stream.next()
    assert (end.kind, end.data["error"]) == ("prompt.failed", "no such model")


def test_a_new_attempt_restarts_the_text(alice: RemoteUser, worker: Pipeline) -> None:
    class SecondTime(Stepwise):
        def generate(self, request: GenerationRequest) -> Iterator[str]:
            for word in super().generate(request):
                yield word.upper()

    generator = Stepwise()
    prompt_id = alice.submit()

    def fail_then_answer() -> None:
        class Fails(Stepwise):
            def generate(self, request: GenerationRequest) -> Iterator[str]:
                yield from islice(generator.generate(request), 3)
                raise ProviderError("cut off")

        brief = dataclasses.replace(worker, retry_backoff=worker.retry_backoff * 0)
        dataclasses.replace(brief, generator=Fails()).process(1)
        with worker.sessions.begin() as session:
            lifecycle.end_backoffs(session)
        dataclasses.replace(brief, generator=again).process(1)

    again = SecondTime()
    generator.let(3)
    again.let(len(WORDS))
    with follow(alice, prompt_id) as stream:
        work = threading.Thread(target=fail_then_answer)
        work.start()
        seen = list(stream)
        work.join(MAX_WAIT_SECONDS)
    texts: dict[int, str] = {}
    for event in seen[:-1]:
        attempt = event.data["attempt"]
        assert len(texts.get(attempt, "").encode()) == event.data["offset"]
        texts[attempt] = texts.get(attempt, "") + event.data["text"]
    assert texts[1] == "".join(WORDS[:3])
    assert texts[2] == seen[-1].data["response_text"] == "".join(WORDS).upper()


def test_a_logout_ends_the_stream(alice: RemoteUser) -> None:
    prompt_id = alice.submit()
    with follow(alice, prompt_id) as stream:
        alice.http.post("/auth/logout/", json={"refresh": alice.tokens["refresh"]}).raise_for_status()
        assert list(stream) == []


def test_a_stopping_process_ends_its_streams(alice: RemoteUser, settings: Settings) -> None:
    prompt_id = alice.submit()
    with processes.api(settings) as elsewhere:
        streaming = follow(alice, prompt_id, url=elsewhere)
        stream = streaming.__enter__()
        wait_until(lambda: stream.response.status_code == 200)
    assert list(stream) == []
    streaming.__exit__(None, None, None)


def test_another_users_prompt_does_not_exist(alice: RemoteUser, url: str) -> None:
    response = RemoteUser(url).http.get(f"/prompts/{alice.submit()}/stream/")
    assert (response.status_code, response.json()["status"]) == (404, 404)


@pytest.mark.parametrize("last", ["7", "1-", "-1", "1-2-3", "a-b", "1-end-", "¹-2", "1-" + "9" * 30])
def test_a_malformed_position_is_refused(alice: RemoteUser, last: str) -> None:
    headers = {"Last-Event-ID": last.encode()}
    response = alice.http.get(f"/prompts/{alice.submit()}/stream/", headers=headers)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "Last-Event-ID")


@pytest.mark.parametrize("position", [Position(), Position(2, 140), Position(2, is_end=True)])
def test_a_position_survives_formatting_and_parsing(position: Position) -> None:
    assert Position.parse(str(position)) == position
