"""The events of a response: numbered without gaps, and the same however its text arrives."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.db.models import FrontApi, Priority, Status
from shared.openai.response_events import Event, ResponseEvents, replay
from shared.openai.response_resource import StoredResponse, response_resource
from shared.prompts.answer import Answer, FinishReason
from shared.prompts.queries import PromptRow
from shared.providers.model_request import TEXT_ONLY
from tests.support.openresponses import assert_event, assert_valid, text_of

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
TEXTS = st.text(st.sampled_from("ab \n\u3000é漢😀"), max_size=120)


def response(
    text: str | None = "An answer of five words.",
    status: Status = Status.COMPLETED,
    *,
    attempt: int = 1,
    finish_reason: FinishReason = FinishReason.STOP,
    calls: list[dict[str, Any]] | None = None,
    **api_request: Any,
) -> StoredResponse:
    answer = Answer(text, "g", "m", 1, 2, finish_reason, calls) if status == Status.COMPLETED else Answer()
    prompt = PromptRow(
        id=7,
        prompt_text="Hi",
        status=status,
        websocket=True,
        attempt=attempt,
        error="The provider failed." if status == Status.FAILED else None,
        seq=1,
        cache=None,
        history=0,
        route="default",
        priority=Priority.DEFAULT,
        metadata=None,
        api=FrontApi.RESPONSES,
        created_at=NOW,
        completed_at=NOW,
        emptied_at=None,
        answer=answer,
    )
    return StoredResponse(prompt, TEXT_ONLY, api_request)


def replayed(stored: StoredResponse) -> list[Event]:
    return list(replay(ResponseEvents(stored), stored))


def live(stored: StoredResponse, attempts: list[list[str]]) -> list[Event]:
    """The events of a stream that has followed these attempts, each in these chunks."""
    events = ResponseEvents(stored)
    sent = list(events.start())
    for chunks in attempts:
        events.begin_attempt()
        for chunk in chunks:
            sent += events.add(chunk)
    return sent + list(events.end(stored))


def kinds(events: list[Event]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_the_events_of_an_answer_are_those_of_open_responses_in_their_order() -> None:
    events = [assert_event(event) for event in replayed(response("Tides rise."))]
    assert kinds(events) == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert text_of(events) == "Tides rise."
    assert events[-1]["response"]["output"] == [events[-2]["item"]]


@given(TEXTS, st.lists(st.integers(0, 120)))
def test_the_numbers_do_not_depend_on_when_the_text_arrives(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(places)]
    stored = response(text)
    events = live(stored, [chunks])
    assert events == replayed(stored)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert text_of(events) == text


@given(st.lists(TEXTS, max_size=3), TEXTS, st.integers(0, 120))
def test_a_replay_after_failed_attempts_is_what_a_live_stream_has_sent(
    failed: list[str], answer: str, cut: int
) -> None:
    interrupted = {str(attempt): text for attempt, text in enumerate(failed, 1) if text}
    stored = response(answer, attempt=len(failed) + 1, interrupted=interrupted)
    events = live(stored, [*([text[:cut], text[cut:]] for text in failed), [answer[:cut], answer[cut:]]])
    assert events == replayed(stored)
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["status"] for item in items[:-1]] == ["incomplete"] * (len(items) - 1)
    assert items[-1]["content"][0]["text"] == answer
    assert items[-1] == response_resource(stored, restarts=len(items) - 1)["output"][0]
    assert len({item["id"] for item in items}) == len(items)


def test_an_attempt_that_repeats_what_was_sent_goes_on_in_the_same_item() -> None:
    stored = response("one two three four", attempt=2, interrupted={"1": "one two thr"})
    events = live(stored, [["one two thr"], ["one ", "two ", "three four"]])
    assert kinds(events).count("output_item.added") == 1
    assert text_of(events) == "one two three four"


def test_an_attempt_that_differs_ends_the_item_as_incomplete_and_begins_another() -> None:
    stored = response("uno dos", attempt=2, interrupted={"1": "one two "})
    items = [event for event in replayed(stored) if event["type"].startswith("response.output_item")]
    assert [(event["output_index"], event["item"]["status"]) for event in items] == [
        *((0, "in_progress"), (0, "incomplete")),
        *((1, "in_progress"), (1, "completed")),
    ]
    assert [event["item"]["id"] for event in items] == ["msg_7", "msg_7", "msg_7_2", "msg_7_2"]


@pytest.mark.parametrize(
    ("stored", "last", "status"),
    [
        (response(finish_reason=FinishReason.LENGTH), "incomplete", "incomplete"),
        (response(finish_reason=FinishReason.CONTENT_FILTER), "incomplete", "incomplete"),
        (response(status=Status.FAILED, interrupted={"1": "half an answer "}), "failed", "failed"),
        (response(status=Status.CANCELLED, interrupted={"1": "half an answer "}), "incomplete", "cancelled"),
        (response(status=Status.CANCELLED, attempt=0, background=True), "incomplete", "cancelled"),
        (response("", calls=[CALL], finish_reason=FinishReason.TOOL_CALLS), "completed", "completed"),
        (response("Wait.", calls=[CALL, CALL], finish_reason=FinishReason.TOOL_CALLS), "completed", "completed"),
    ],
)
def test_every_event_and_resource_is_valid_however_a_response_ends(
    stored: StoredResponse, last: str, status: str
) -> None:
    events = [assert_event(event) for event in replayed(stored)]
    assert events[-1]["type"] == f"response.{last}"
    assert assert_valid("ResponseResource", events[-1]["response"])["status"] == status
    opened = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    assert opened == [event["item"]["id"] for event in events if event["type"] == "response.output_item.done"]


def test_a_background_response_is_queued_and_in_progress_once_it_is_claimed() -> None:
    assert kinds(replayed(response(background=True)))[:3] == ["created", "queued", "in_progress"]
    cancelled = replayed(response(status=Status.CANCELLED, attempt=0, background=True))
    assert kinds(cancelled) == ["created", "queued", "incomplete"]


def test_the_arguments_of_a_call_come_as_delta_and_done() -> None:
    events = replayed(response("", calls=[CALL], finish_reason=FinishReason.TOOL_CALLS))
    assert kinds(events)[2:-1] == [
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
    ]
    assert events[-2]["item"] == {
        "type": "function_call",
        "id": "fc_7_1",
        "call_id": "call_1",
        "name": "f",
        "arguments": '{"a": 1}',
        "status": "completed",
    }


def test_a_long_answer_is_sent_word_by_word() -> None:
    deltas = [event for event in replayed(response("word " * 50_000)) if "delta" in event]
    assert len(deltas) == 50_000 + 1  # the last one is the last space
