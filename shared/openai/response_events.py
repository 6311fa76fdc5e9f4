"""The events of a response's stream, as a function of what is stored.

Events are numbered from 0 without gaps, and an event has the same number in every replay, in any process. So nothing
in them depends on when text arrived:

- The text is cut where a word ends, or after 16 characters. A cut depends on the text before it alone, and the rest is
  held back until it is decided.
- If an attempt fails after its text was sent, the next attempt's text is compared with what was sent. As long as it is
  the same, the stream goes on behind it. Where it differs, the open item ends as `incomplete`, and a new one begins.
  The texts of such attempts are stored (see `stored_responses.py`), so a replay shows the same.
"""

import re
from collections.abc import Iterator
from typing import Any

from shared.db.models import Status
from shared.openai.response_resource import (
    StoredResponse,
    call_item,
    message_item,
    response_resource,
    snapshot,
    status,
    text_part,
)

#: The kinds of the event that ends a stream.
LAST_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
#: One event: its `type` and `sequence_number`, and what the type adds.
Event = dict[str, Any]

# The published schema has no event of a cancelled response.
_LAST_OF = {"cancelled": "incomplete"}
# Up to 15 spaces and a word that has ended or has 16 characters; or 16 spaces.
_DELTA = re.compile(r"\s{16}|\s{0,15}(?:\S{16}|\S{1,15}(?=\s))")


class ResponseEvents:
    """The events of one response so far. Feed it in this order: `start`, attempts with their texts, `end`."""

    def __init__(self, response: StoredResponse) -> None:
        self._response = response
        self._next_number = 0
        self._is_in_progress = False
        self._text = ""  #: of the current attempt
        self._sent = 0  #: how many characters of the open item's text were sent
        self._earlier = ""  #: what was sent of earlier attempts, until the current one's text has passed it
        self._output_index = 0
        self._is_open = False
        self.restarts = 0  #: how many items were given up

    @property
    def text(self) -> str:
        """The text of the current attempt so far."""
        return self._text

    def start(self) -> Iterator[Event]:
        """The events of a response that is stored."""
        if not self._response.is_background:
            yield self._event("response.created", response=snapshot(self._response, "in_progress"))
            yield from self._begin_progress()
            return
        for name in ("created", "queued"):
            yield self._event(f"response.{name}", response=snapshot(self._response, "queued"))

    def begin_attempt(self) -> None:
        """Another attempt begins: its text comes from the start."""
        if not self._earlier:
            self._earlier = self._text[: self._sent]
        self._text = ""

    def add(self, text: str) -> Iterator[Event]:
        """The events of more text of the current attempt."""
        if text:
            self._text += text
            yield from self._begin_progress()
            yield from self._send_words()

    def end(self, response: StoredResponse) -> Iterator[Event]:
        """The last events. `response` has ended."""
        prompt, self._response = response.prompt, response
        if prompt.attempt:
            yield from self._begin_progress()
        if prompt.status == Status.COMPLETED:
            yield from self._send_answer(response)
        else:
            yield from self._close("incomplete")
        resource = response_resource(response, restarts=self.restarts)
        yield self._event(f"response.{_LAST_OF.get(resource['status'], resource['status'])}", response=resource)

    def error(self, message: str, code: str) -> Event:
        """The event of a stream that cannot go on."""
        error = {"type": "invalid_request_error", "code": code, "message": message, "param": None}
        return self._event("error", error=error)

    def _send_answer(self, response: StoredResponse) -> Iterator[Event]:
        answer, calls = response.prompt.answer.response_text or "", response.prompt.answer.tool_calls or []
        self.begin_attempt()
        self._text = answer
        yield from self._send_words(is_whole=True)
        if not calls and not self._is_open:
            yield from self._open()
        yield from self._close("incomplete" if status(response.prompt) == "incomplete" else "completed")
        for index, call in enumerate(calls):
            yield from self._send_call(index, call)

    def _send_words(self, *, is_whole: bool = False) -> Iterator[Event]:
        if not self._text.startswith(self._earlier):
            if not is_whole and self._earlier.startswith(self._text):
                return  # it may still become the same
            yield from self._close("incomplete")
            self.restarts += 1
        self._earlier = ""
        for found in _DELTA.finditer(self._text, self._sent):
            yield from self._send(found[0])
        if is_whole and self._sent < len(self._text):
            yield from self._send(self._text[self._sent :])

    def _send(self, delta: str) -> Iterator[Event]:
        if not self._is_open:
            yield from self._open()
        self._sent += len(delta)
        yield self._part_event("response.output_text.delta", delta=delta, logprobs=[])

    def _open(self) -> Iterator[Event]:
        self._is_open = True
        yield self._item_event("added", self._message("in_progress"))
        yield self._part_event("response.content_part.added", part=text_part(""))

    def _close(self, item_status: str) -> Iterator[Event]:
        """End the open item, if there is one."""
        if not self._is_open:
            return
        text = (self._earlier or self._text)[: self._sent]
        yield self._part_event("response.output_text.done", text=text, logprobs=[])
        yield self._part_event("response.content_part.done", part=text_part(text))
        yield self._item_event("done", self._message(item_status, text))
        self._is_open, self._sent = False, 0
        self._output_index += 1

    def _send_call(self, index: int, call: dict[str, Any]) -> Iterator[Event]:
        item = call_item(self._response.prompt.id, index, "completed", call)
        place = {"item_id": item["id"], "output_index": self._output_index}
        yield self._item_event("added", item | {"status": "in_progress", "arguments": ""})
        if item["arguments"]:
            yield self._event("response.function_call_arguments.delta", **place, delta=item["arguments"])
        done = {"name": item["name"], "arguments": item["arguments"]}
        yield self._event("response.function_call_arguments.done", **place, **done)
        yield self._item_event("done", item)
        self._output_index += 1

    def _begin_progress(self) -> Iterator[Event]:
        if not self._is_in_progress:
            self._is_in_progress = True
            yield self._event("response.in_progress", response=snapshot(self._response, "in_progress"))

    def _message(self, item_status: str, text: str | None = None) -> dict[str, Any]:
        return message_item(self._response.prompt.id, self.restarts, item_status, text)

    def _item_event(self, name: str, item: dict[str, Any]) -> Event:
        return self._event(f"response.output_item.{name}", output_index=self._output_index, item=item)

    def _part_event(self, kind: str, **members: Any) -> Event:
        place = {"item_id": self._message("")["id"], "output_index": self._output_index, "content_index": 0}
        return self._event(kind, **place, **members)

    def _event(self, kind: str, **members: Any) -> Event:
        number, self._next_number = self._next_number, self._next_number + 1
        return {"type": kind, "sequence_number": number, **members}


def restarts(response: StoredResponse) -> int:
    """How many items the stream of a completed response has given up before the one with the answer."""
    interrupted = response.interrupted
    if not interrupted:
        return 0
    events = ResponseEvents(response)
    for _ in replay(events, response):
        pass
    return events.restarts


def replay(events: ResponseEvents, response: StoredResponse) -> Iterator[Event]:
    """All events of a response that has ended."""
    yield from events.start()
    for attempt, text in response.interrupted.items():
        if attempt < response.prompt.attempt or response.prompt.status != Status.COMPLETED:
            events.begin_attempt()
            yield from events.add(text)
    yield from events.end(response)
