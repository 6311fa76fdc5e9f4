"""The streams of `/v1/responses`: the same events with the same numbers, whenever, wherever and however often."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from werkzeug.test import TestResponse

from api.services import Services
from shared.errors import ProviderError
from shared.messaging.announcements import Announcement
from shared.messaging.partial_text import Write
from tests.support import lifecycle
from tests.support.chat import assert_error
from tests.support.client import ApiUser
from tests.support.openresponses import assert_event, parse_events, text_of
from tests.support.providers import Script
from tests.support.responses import PATH, WEATHER, create, events, prompt_of, queue
from tests.support.worker_threads import answering
from worker.deltas import FIRST_DELTA_SECONDS
from worker.pipeline import Pipeline

ANSWER = "one two three four five six"


class OpenStream:
    """A stream that is read event by event."""

    def __init__(self, response: TestResponse) -> None:
        assert response.status_code == 200, response.text
        self._response = response
        self._blocks = iter(response.response)
        self.events: list[dict[str, Any]] = []

    def next(self) -> dict[str, Any] | None:
        """The next event; None for `[DONE]`. Heartbeats are passed over."""
        for block in self._blocks:
            data = block.decode().strip().rpartition("data: ")[2]
            if data == "[DONE]":
                return None
            if data.startswith("{"):
                self.events.append(assert_event(json.loads(data)))
                return self.events[-1]
        raise AssertionError("the stream has ended without [DONE]")

    def until(self, kind: str) -> None:
        """Read up to an event of this kind."""
        while (event := self.next()) is not None and event["type"] != f"response.{kind}":
            pass
        assert event is not None

    def rest(self) -> list[dict[str, Any]]:
        """Read to the end. Returns all events."""
        while self.next() is not None:
            pass
        return self.events

    def close(self) -> None:
        self._response.close()


def follow(user: ApiUser, response_id: str, after: int | None = None) -> OpenStream:
    resumed = "" if after is None else f"&starting_after={after}"
    return OpenStream(user.get(f"{PATH}/{response_id}?stream=true{resumed}", buffered=False))


class Attempt:
    """An attempt at a response whose text comes when the test says so, as a worker publishes it."""

    def __init__(self, services: Services, user: ApiUser, response_id: str) -> None:
        self._services = services
        self._user_id, self._prompt_id = user.id, prompt_of(response_id)
        with services.sessions.begin() as session:
            self.claim = lifecycle.claim(session, self._prompt_id)
        self._text = ""

    def publish(self, more: str) -> None:
        announcement = Announcement(None, prompt_id=self._prompt_id, attempt=self.claim.attempt)
        write = Write(self._user_id, len(self._text.encode()), more, announcement)
        assert self._services.partial_text.write([write]) == [True]
        self._text += more

    def complete(self, answer: str) -> None:
        with self._services.sessions.begin() as session:
            finished = lifecycle.complete(session, self.claim, answer)
        self._services.announcer.announce((self._user_id, lifecycle_announcement(finished)))

    def lapse(self) -> None:
        """End as if the worker had been killed: the lease lapses, and the prompt is queued again."""
        with self._services.sessions.begin() as session:
            session.execute(
                text("""
                    UPDATE prompts SET status = 'queued', turn = 0, due_at = now() + interval '1 minute'
                    WHERE id = :id AND status = 'processing'
                """),
                {"id": self._prompt_id},
            )


def lifecycle_announcement(finished: Any) -> Announcement:
    return Announcement(finished.seq, prompt_id=finished.prompt_id, attempt=finished.attempt)


@pytest.fixture
def completed(alice: ApiUser, worker: Pipeline) -> str:
    """A completed response."""
    response_id = queue(alice, "Explain tides")
    worker.process(1)
    return response_id


def test_resuming_at_every_event_gives_exactly_the_rest_from_any_process(
    alice: ApiUser, completed: str, make_app: Callable[..., Any]
) -> None:
    whole = events(alice, completed)
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    elsewhere = alice.at(make_app()[0])
    for number in range(-1, len(whole) + 1):
        user = (alice, elsewhere)[number % 2]
        assert events(user, completed, number if number >= 0 else None) == whole[number + 1 :]


def test_a_live_stream_is_what_a_replay_shows_and_ends_with_the_resource(alice: ApiUser, worker: Pipeline) -> None:
    with answering(worker):
        live = parse_events(create(alice, "Explain tides", stream=True).text)
    resource = live[-1]["response"]
    assert events(alice, resource["id"]) == live
    assert alice.get(f"{PATH}/{resource['id']}").json == resource
    assert text_of(live) == resource["output"][0]["content"][0]["text"]


def test_a_stream_is_resumed_during_the_generation_from_another_process(
    alice: ApiUser, services: Services, make_app: Callable[..., Any]
) -> None:
    response_id = queue(alice)
    stream = follow(alice, response_id)
    attempt = Attempt(services, alice, response_id)
    attempt.publish("one two thr")
    stream.until("output_text.delta")
    stream.close()
    resumed = follow(alice.at(make_app()[0]), response_id, stream.events[-1]["sequence_number"])
    attempt.publish("ee four ")
    resumed.until("output_text.delta")
    attempt.complete(ANSWER)
    assert stream.events + resumed.rest() == events(alice, response_id)


def test_an_attempt_after_a_killed_worker_that_says_the_same_goes_on_where_the_stream_was(
    alice: ApiUser, services: Services
) -> None:
    response_id = queue(alice)
    stream = follow(alice, response_id)
    killed = Attempt(services, alice, response_id)
    killed.publish("one two three ")
    stream.until("output_text.delta")
    killed.lapse()
    attempt = Attempt(services, alice, response_id)
    attempt.publish("one ")
    attempt.publish("two three four ")
    attempt.complete(ANSWER)
    live = stream.rest()
    assert text_of(live) == ANSWER
    assert len(live[-1]["response"]["output"]) == 1
    assert events(alice, response_id) == live


def test_an_attempt_after_a_killed_worker_that_differs_begins_another_item_in_every_replay(
    alice: ApiUser, services: Services, make_app: Callable[..., Any]
) -> None:
    response_id = queue(alice)
    stream = follow(alice, response_id)
    killed = Attempt(services, alice, response_id)
    killed.publish("uno dos tres ")
    stream.until("output_text.delta")
    killed.lapse()
    attempt = Attempt(services, alice, response_id)
    attempt.publish("one two ")
    attempt.complete(ANSWER)
    live = stream.rest()
    done = [event["item"] for event in live if event["type"] == "response.output_item.done"]
    assert [item["status"] for item in done] == ["incomplete", "completed"]
    assert done[1] == live[-1]["response"]["output"][0]
    services.partial_text.delete([(prompt_of(response_id), 1), (prompt_of(response_id), 2)])
    elsewhere = alice.at(make_app()[0])
    for number in range(len(live)):
        assert events(elsewhere, response_id, number) == live[number + 1 :]
    assert elsewhere.get(f"{PATH}/{response_id}").json == live[-1]["response"]


def test_a_stream_that_nobody_followed_during_the_second_attempt_is_resumed_as_well(
    alice: ApiUser, services: Services, worker: Pipeline
) -> None:
    """The worker of the next attempt stores what the killed one had published."""
    response_id = queue(alice)
    stream = follow(alice, response_id)
    killed = Attempt(services, alice, response_id)
    killed.publish("uno dos tres ")
    stream.until("output_text.delta")
    stream.close()
    killed.lapse()
    replace(worker, generator=Script(ANSWER)).process(1)
    services.partial_text.delete([(prompt_of(response_id), 1)])
    rest = events(alice, response_id, stream.events[-1]["sequence_number"])
    assert stream.events + rest == events(alice, response_id)
    assert text_of(stream.events + rest) == f"uno dos tres{ANSWER} "


class _Breaking:
    """Publishes a part of an answer, and fails."""

    name, max_batch_size = "breaking", 1

    def generate(self, request: Any) -> Iterator[str]:
        yield "uno "
        yield from _slowly("dos tres ")
        raise ProviderError("The model broke off.", retryable=False)


def _slowly(words: str) -> Iterator[str]:
    time.sleep(2 * FIRST_DELTA_SECONDS)
    yield words


def test_a_failed_response_ends_with_its_error_and_replays_what_was_sent(
    alice: ApiUser, services: Services, worker: Pipeline
) -> None:
    response_id = queue(alice)
    replace(worker, generator=_Breaking()).process(1)
    services.partial_text.delete([(prompt_of(response_id), 1)])
    replayed = events(alice, response_id)
    assert replayed[-1]["type"] == "response.failed"
    assert replayed[-1]["response"]["error"]["message"] == "The model broke off."
    assert text_of(replayed) == "uno dos tres"
    assert events(alice, response_id) == replayed


def test_a_response_that_is_cancelled_ends_its_streams_with_the_same_events(alice: ApiUser, services: Services) -> None:
    response_id = queue(alice)
    stream = follow(alice, response_id)
    Attempt(services, alice, response_id).publish("one two thr")
    stream.until("output_text.delta")
    alice.post(f"{PATH}/{response_id}/cancel")
    live = stream.rest()
    assert live[-1]["type"] == "response.incomplete"
    assert live[-1]["response"]["status"] == "cancelled"
    services.partial_text.delete([(prompt_of(response_id), 1)])
    assert events(alice, response_id) == live


def test_a_stream_ends_with_an_error_event_when_the_response_is_deleted(alice: ApiUser) -> None:
    response_id = queue(alice)
    stream = follow(alice, response_id)
    stream.until("queued")
    alice.delete(f"{PATH}/{response_id}")
    assert [event["type"] for event in stream.rest()] == ["response.created", "response.queued", "error"]


def test_a_stream_whose_caller_hangs_up_loses_nothing(alice: ApiUser, worker: Pipeline) -> None:
    stream = OpenStream(create(alice, "Explain tides", stream=True))
    stream.until("in_progress")
    stream.close()
    worker.process(1)
    response_id = stream.events[0]["response"]["id"]
    rest = events(alice, response_id, stream.events[-1]["sequence_number"])
    assert rest[-1]["response"]["status"] == "completed"
    assert stream.events + rest == events(alice, response_id)


def test_a_stream_ends_without_done_when_the_process_stops_so_that_the_client_resumes(
    make_app: Callable[..., Any], worker: Pipeline
) -> None:
    app, stopping = make_app()
    alice = ApiUser(app, "alice")
    response_id = queue(alice)
    stream = follow(alice, response_id)
    stream.until("queued")
    stopping.relay.shut_down()
    with pytest.raises(AssertionError, match="without"):
        stream.next()
    worker.process(1)
    elsewhere = alice.at(make_app()[0])
    assert stream.events + events(elsewhere, response_id, 1) == events(elsewhere, response_id)


def test_an_idle_stream_sends_comments(alice: ApiUser) -> None:
    blocks = iter(alice.get(f"{PATH}/{queue(alice)}?stream=true", buffered=False).response)
    assert [next(blocks)[:7] for _ in range(2)] == [b"event: "] * 2
    assert next(blocks) == b":\n\n"


def test_the_calls_of_functions_are_streamed(alice: ApiUser, worker: Pipeline) -> None:
    response_id = queue(alice, "What is the weather in Lisbon?", tools=[WEATHER])
    worker.process(1)
    streamed = events(alice, response_id)
    (done,) = [event for event in streamed if event["type"] == "response.function_call_arguments.done"]
    assert json.loads(done["arguments"]).keys() == {"city"}
    assert streamed[-1]["response"]["output"] == [streamed[-2]["item"]]


@pytest.mark.parametrize("query", ["stream=true&starting_after=-1", "stream=true&starting_after=x", "starting_after=1"])
def test_a_wrong_start_is_400(alice: ApiUser, query: str) -> None:
    assert assert_error(alice.get(f"{PATH}/{queue(alice)}?{query}"), 400)["param"] == "starting_after"
