"""The stream of a chat completion, over several attempts at its prompt."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest

from api.openai import chat_stream
from api.realtime.text_stream import Event
from shared.openai.chat_resource import Chunks
from shared.prompts.answer import Answer
from shared.prompts.queries import PromptRow

NOW = datetime(2026, 11, 23, tzinfo=UTC)
ANSWER = Answer("The moon pulls.")


class Stream(NamedTuple):
    """Stands in for a `TextStream`."""

    parts: list[Event]

    def events(self) -> Iterator[Event]:
        yield from self.parts


def prompt(status: str = "completed", answer: Answer = ANSWER, **fields: Any) -> PromptRow:
    values = {
        "id": 7,
        "prompt_text": "Hi",
        "status": status,
        "websocket": True,
        "attempt": 1,
        "error": None,
        "seq": 1,
        "cache": None,
        "history": 0,
        "route": "default",
        "priority": "default",
        "metadata": None,
        "api": None,
        "created_at": NOW,
        "completed_at": NOW,
        "emptied_at": None,
        "answer": answer,
    }
    return PromptRow(**values | fields)


def delta(attempt: int, text: str) -> Event:
    return Event("prompt.delta", {"attempt": attempt, "text": text})


def read(*events: Event, with_usage: bool = False) -> list[Any]:
    """The text, the errors and the end of a stream of these events: strings, objects, and `[DONE]`."""
    chunks = Chunks(prompt("queued"), with_usage=with_usage)
    encoded = chat_stream.encode(Stream(list(events)), chunks, "/v1/chat/completions/chatcmpl-7")
    return [json.loads(each[6:]) if each.startswith("data: {") else each for each in encoded]


def text_of(events: list[Any]) -> str:
    found = [each["choices"][0]["delta"].get("content") for each in events if "choices" in each]
    return "".join(filter(None, found))


ENDED = Event("prompt.completed", {}, None, prompt())


@pytest.mark.parametrize(
    "attempts",
    [
        [(1, "The moon "), (1, "pulls.")],
        [(1, "The moon "), (2, "The moon "), (2, "pulls.")],
        [(1, "The moon "), (2, "The"), (2, " moon pul"), (2, "ls.")],
        [(1, "The "), (2, "The moon "), (3, "The moon pulls.")],
        [(1, "The moon pulls."), (2, "The moon pulls.")],
    ],
)
def test_the_text_of_an_attempt_that_continues_an_earlier_one_is_sent_once(attempts: list[tuple[int, str]]) -> None:
    events = read(*(delta(*each) for each in attempts), ENDED)
    assert text_of(events) == "The moon pulls."
    assert events[-1] == chat_stream.DONE


@pytest.mark.parametrize(
    "attempts",
    [
        [(1, "The moon "), (2, "The sun ")],
        [(1, "The moon "), (2, "The m"), (2, "an ")],
        [(1, "The moon "), (2, "The")],  # the second attempt ends before it has repeated what was sent
    ],
)
def test_an_answer_that_begins_otherwise_is_an_error_that_says_where_the_whole_answer_will_be(
    attempts: list[tuple[int, str]],
) -> None:
    *before, last = read(*(delta(*each) for each in attempts), ENDED)
    assert text_of(before) == "The moon "
    assert last["error"]["code"] == "answer_restarted"
    assert "GET /v1/chat/completions/chatcmpl-7" in last["error"]["message"]


def test_a_stream_that_is_interrupted_ends_with_an_error_and_without_done() -> None:
    *_, last = read(delta(1, "The moon "))
    assert last["error"]["code"] == "answer_pending"
    assert "GET /v1/chat/completions/chatcmpl-7" in last["error"]["message"]


@pytest.mark.parametrize(
    ("status", "code"), [("failed", "prompt_failed"), ("cancelled", "prompt_cancelled"), (None, "prompt_not_found")]
)
def test_a_prompt_that_ends_without_an_answer_ends_the_stream_with_its_error(status: str | None, code: str) -> None:
    ended = None if status is None else prompt(status, Answer(), error="The model refuses this.")
    *_, last = read(delta(1, "The moon "), Event("prompt.ended", {}, None, ended))
    assert last["error"]["code"] == code
    assert status != "failed" or "The model refuses this." in last["error"]["message"]


def test_heartbeats_are_comments() -> None:
    assert read(Event(), ENDED)[1] == ":\n\n"


def test_the_usage_is_in_one_more_chunk_and_null_in_all_others() -> None:
    answer = Answer("The moon.", prompt_tokens=1, completion_tokens=2)
    *others, last, done = read(delta(1, "The moon."), Event("x", {}, None, prompt(answer=answer)), with_usage=True)
    assert (last["choices"], last["usage"]) == ([], {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
    assert [each["usage"] for each in others] == [None, None, None]
    assert done == chat_stream.DONE
    assert all("usage" not in each for each in read(delta(1, "The moon."), ENDED)[:-1])


def test_calls_of_tools_come_whole_and_numbered() -> None:
    calls = [{"id": f"c{i}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in range(2)]
    answer = Answer("", tool_calls=calls, finish_reason="tool_calls")
    _, first, second, last, _ = read(Event("x", {}, None, prompt(answer=answer)))
    assert first["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **calls[0]}]
    assert second["choices"][0]["delta"]["tool_calls"] == [{"index": 1, **calls[1]}]
    assert last["choices"][0]["finish_reason"] == "tool_calls"
