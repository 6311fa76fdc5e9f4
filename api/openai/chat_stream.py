"""The answer to a prompt as a stream of chat completion chunks (server-sent events)."""

from collections.abc import Iterator
from typing import Any

import structlog
from flask import json
from sqlalchemy.exc import SQLAlchemyError

from api.http import problems
from api.http.event_stream import DONE, HEARTBEAT
from api.openai import answers
from api.openai.errors import from_problem
from api.realtime.text_stream import Event, TextStream
from shared.errors import AnswerRestartedError, PromptNotFoundError, PromptwireError
from shared.openai.chat_resource import Chunks
from shared.telemetry import metrics

log = structlog.get_logger(__name__)


class SentText:
    """The text that a client has received, whichever attempts it came from."""

    def __init__(self) -> None:
        self._sent: list[str] = []
        self._attempt = 0
        #: What the client has, and this attempt has not repeated yet.
        self._ahead = ""

    @property
    def is_ahead(self) -> bool:
        """Whether the client has more than this attempt has generated."""
        return self._ahead != ""

    def add(self, attempt: int, text: str) -> str:
        """What the client lacks of the next text of an attempt.

        Raises:
            AnswerRestartedError: the text of this attempt is not what the client has of an earlier one.
        """
        if attempt != self._attempt:
            self._attempt, self._ahead = attempt, "".join(self._sent)
        repeated, self._ahead = self._ahead[: len(text)], self._ahead[len(text) :]
        if not text.startswith(repeated):
            raise AnswerRestartedError
        new = text[len(repeated) :]
        self._sent.append(new)
        return new


def encode(stream: TextStream, chunks: Chunks, found_at: str) -> Iterator[str]:
    """Encode a stream from its start. After the last chunk comes `[DONE]`; an error ends it without that.

    Args:
        found_at: Where the answer will be found, for errors.
    """
    try:
        yield _data(chunks.first())
        yield from _answer(stream.events(), chunks, found_at)
    except SQLAlchemyError as error:
        log.warning("postgres unavailable, stream ended", error=type(error).__name__)
        yield _error(answers.pending(found_at))
    except PromptwireError as error:
        yield _error(error)


def _answer(events: Iterator[Event], chunks: Chunks, found_at: str) -> Iterator[str]:
    sent = SentText()
    for event in events:
        if event.kind is None:
            yield HEARTBEAT
        elif event.kind == "prompt.delta" and event.data is not None:
            yield from _text(event.data, sent, chunks, found_at)
        elif event.prompt is None:
            raise PromptNotFoundError("The prompt was deleted.")
        else:
            answers.check_answered(event.prompt)
            if sent.is_ahead:
                raise _restarted(found_at)
            yield from map(_data, chunks.end(event.prompt.answer))
            yield DONE
            return
    raise answers.pending(found_at)  # the login has ended, or this process is being stopped


def _text(delta: dict[str, Any], sent: SentText, chunks: Chunks, found_at: str) -> Iterator[str]:
    try:
        new = sent.add(delta["attempt"], delta["text"])
    except AnswerRestartedError:
        raise _restarted(found_at) from None
    if new:
        yield _data(chunks.text(new))


def _restarted(found_at: str) -> AnswerRestartedError:
    return AnswerRestartedError(
        "An attempt failed after a part of its answer was sent, and the next one answers otherwise. "
        f"The whole answer will be found at GET {found_at}."
    )


def _data(value: dict[str, Any]) -> str:
    metrics.stream_events.inc()
    return f"data: {json.dumps(value)}\n\n"


def _error(error: PromptwireError) -> str:
    return _data(from_problem(problems.from_error(error).get_json()))
