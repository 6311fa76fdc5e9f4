"""A response as server-sent events, resumable at every event from any process."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog
from flask import json
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.http.event_stream import DONE, HEARTBEAT
from api.realtime.fair_semaphore import FairSemaphore
from api.realtime.text_stream import TextStream
from shared.db.models import Status
from shared.messaging.partial_text import PartialText
from shared.openai import stored_responses
from shared.openai.response_events import LAST_EVENTS, Event, ResponseEvents
from shared.openai.response_resource import StoredResponse
from shared.prompts.queries import PromptRow
from shared.telemetry import metrics

log = structlog.get_logger(__name__)


class InterruptedTexts:
    """The texts that failed and cancelled attempts had published.

    Args:
        engine: In autocommit mode.
        db_slots: Limits concurrent queries.
    """

    def __init__(self, engine: Engine, db_slots: FairSemaphore, partial_text: PartialText) -> None:
        self._engine = engine
        self._db_slots = db_slots
        self._partial_text = partial_text

    def between(self, prompt_id: int, first: int, end: int, known: str) -> list[tuple[int, str]]:
        """The attempts from `first` on and before `end` that have published something, and what.

        Args:
            known: What was read of the text of `first`.
        """
        with self._db_slots, self._engine.connect() as connection:
            kept = stored_responses.interrupted_texts(connection, prompt_id)
            # A worker stores the texts of other attempts when they fail, or when it claims the prompt again.
            for attempt in {first, end - 1} - kept.keys() - {0}:
                text = known if attempt == first else ""
                kept[attempt] = stored_responses.keep_interrupted_text(
                    connection, self._partial_text, prompt_id, attempt, text
                )
        return [(attempt, text) for attempt, text in sorted(kept.items()) if first <= attempt < end and text]


@dataclass
class ResponseStream:
    """The stream of a response.

    It ends with the response, or early when the login has ended or this process stops. Then the client resumes.

    Args:
        after: The number of the last event that the client has; -1 if it has none.
    """

    response: StoredResponse
    texts: TextStream
    interrupted: InterruptedTexts
    after: int = -1
    _events: ResponseEvents = field(init=False)
    _attempt: int = field(init=False, default=0)

    def encode(self) -> Iterator[str]:
        """The stream as it is sent."""
        try:
            for event in self._all():
                if event is None:
                    yield HEARTBEAT
                    continue
                if event["sequence_number"] > self.after:
                    yield encode(event)
                if event["type"] in LAST_EVENTS:
                    yield DONE
        except SQLAlchemyError as error:  # the client resumes
            log.warning("postgres unavailable, stream ended", error=type(error).__name__)

    def _all(self) -> Iterator[Event | None]:
        """All events from the first on; None is a heartbeat."""
        self._events = ResponseEvents(self.response)
        yield from self._events.start()
        for event in self.texts.events():
            if event.kind is None:
                yield None
            elif event.kind == "prompt.delta" and event.data is not None:
                delta: dict[str, Any] = event.data
                yield from self._reach(delta["attempt"])
                yield from self._events.add(delta["text"])
            elif event.prompt is None:
                yield self._events.error("The response was deleted.", "prompt_not_found")
            else:
                yield from self._end(event.prompt)

    def _reach(self, attempt: int) -> Iterator[Event]:
        """Go on to an attempt. What those before it have published comes first."""
        if attempt == self._attempt:
            return
        if attempt > 1:
            known = self._events.text
            for ended, text in self.interrupted.between(self.response.prompt.id, self._attempt, attempt, known):
                if ended != self._attempt:
                    self._events.begin_attempt()
                    known = ""
                yield from self._events.add(text[len(known) :])
        self._events.begin_attempt()
        self._attempt = attempt

    def _end(self, prompt: PromptRow) -> Iterator[Event]:
        is_answered = prompt.status == Status.COMPLETED
        yield from self._reach(prompt.attempt if is_answered else prompt.attempt + 1)
        yield from self._events.end(self.response._replace(prompt=prompt))


def encode(event: Event) -> str:
    """One event as it is sent."""
    metrics.stream_events.inc()
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
