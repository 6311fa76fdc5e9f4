"""The stream of one prompt's text as it is generated, from any position in it.

A position is an attempt and a number of bytes of its text. The text after it comes from Redis while the prompt is
processed, and from Postgres once it has ended. Announcements only trigger reads.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Engine

from api.auth.principal import Principal
from api.auth.token_cache import is_alive
from api.realtime.fair_semaphore import FairSemaphore
from api.realtime.relay import Relay
from api.realtime.single_flight import SingleFlight
from api.realtime.subscription import Subscription
from shared.db.models import UNFINISHED, Status
from shared.errors import PromptNotFoundError
from shared.messaging.partial_text import PartialText
from shared.prompts import queries
from shared.prompts.queries import PromptRow
from shared.prompts.resource import prompt_resource
from shared.telemetry import metrics

HEARTBEAT_SECONDS = 15.0


class Position(NamedTuple):
    """How much of a prompt's text a client has. As text: `2-140`, or `2-end` after the last event."""

    attempt: int = 0
    offset: int = 0  #: in bytes of UTF-8
    is_end: bool = False

    def __str__(self) -> str:
        return f"{self.attempt}-{'end' if self.is_end else self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Parse a position. Raises ValueError if it is malformed."""
        found = re.fullmatch(r"(\d{1,18})-(?:(\d{1,18})|end)", text, re.ASCII)
        if found is None:
            raise ValueError
        return cls(int(found[1]), int(found[2] or 0), is_end=found[2] is None)


class Event(NamedTuple):
    """An event, and the client's position after it, if that changes. Without a kind it is a heartbeat."""

    kind: str | None = None
    data: dict[str, object] | None = None
    position: Position | None = None
    prompt: PromptRow | None = None  #: which has ended; only the last event has it


class StreamReads:
    """The reads of all streams of a process. Streams of the same prompt, at the same position, share them.

    Args:
        db_slots: Limits concurrent queries.
    """

    def __init__(self, engine: Engine, db_slots: FairSemaphore, partial_text: PartialText) -> None:
        self._engine = engine
        self._db_slots = db_slots
        self._partial_text = partial_text
        self._prompts = SingleFlight(self._fetch_prompt)
        self._texts = SingleFlight(self._fetch_text)

    def prompt(self, user_id: int, prompt_id: int) -> tuple[PromptRow, int]:
        """As `queries.get_with_seq`."""
        return self._prompts((user_id, prompt_id))

    def text(self, prompt_id: int, attempt: int, offset: int) -> str:
        """As `PartialText.read`."""
        return self._texts((prompt_id, attempt, offset))

    def is_alive(self, caller: Principal) -> bool:
        """Whether the caller's token and login are still valid."""
        with self._db_slots:
            return is_alive(self._engine, caller)

    def _fetch_prompt(self, ids: tuple[int, int]) -> tuple[PromptRow, int]:
        with self._db_slots, self._engine.connect() as connection:
            return queries.get_with_seq(connection, *ids)

    def _fetch_text(self, position: tuple[int, int, int]) -> str:
        return self._partial_text.read(*position)


@dataclass
class TextStream:
    """The stream of a user's prompt. It ends when the prompt or the login has ended, or when this process stops."""

    relay: Relay
    reads: StreamReads
    caller: Principal
    prompt_id: int
    position: Position
    heartbeat_seconds: float = HEARTBEAT_SECONDS

    def events(self) -> Iterator[Event]:
        """The rest of the text in deltas, then the finished prompt."""
        with metrics.streams.track_inprogress(), self.relay.subscribe(self.caller.id) as subscription:
            yield Event()  # sends the headers at once
            while True:
                try:
                    prompt, seen = self.reads.prompt(self.caller.id, self.prompt_id)
                except PromptNotFoundError:
                    yield Event("prompt.deleted", {"type": "prompt.deleted", "id": self.prompt_id})
                    return
                yield from self._stored_text(prompt)
                if prompt.status not in UNFINISHED:
                    yield self._last_event(prompt)
                    return
                yield from self._live(subscription, seen)
                if subscription.closed or not self.reads.is_alive(self.caller):
                    return

    def _live(self, subscription: Subscription, seen: int) -> Iterator[Event]:
        """Send text as it comes, until the prompt must be read again: after an announcement, or after a heartbeat."""
        until = time.monotonic() + min(self.heartbeat_seconds, self.caller.expires_at - time.time())
        while True:
            announcement = subscription.get(until - time.monotonic())
            if announcement is None:
                yield Event()
                return
            if announcement.seq is None:
                if announcement.is_login_ended:
                    return
                if announcement.prompt_id == self.prompt_id:
                    yield from self._partial_text(announcement.attempt)
            # One without a prompt replaces a lost one, which may have been about this prompt.
            elif announcement.prompt_id in (None, self.prompt_id) or announcement.seq > seen + 1:
                return
            else:
                seen = max(seen, announcement.seq)

    def _stored_text(self, prompt: PromptRow) -> Iterator[Event]:
        if prompt.status == Status.PROCESSING:
            yield from self._partial_text(prompt.attempt)
        elif prompt.status == Status.COMPLETED and prompt.answer.response_text is not None:
            self._start_attempt(prompt.attempt)
            rest = prompt.answer.response_text.encode()[self.position.offset :].decode(errors="ignore")
            yield from self._delta(rest)

    def _partial_text(self, attempt: int) -> Iterator[Event]:
        if attempt < self.position.attempt:
            return
        self._start_attempt(attempt)
        yield from self._delta(self.reads.text(self.prompt_id, attempt, self.position.offset))

    def _start_attempt(self, attempt: int) -> None:
        """Restart the text if this is another attempt."""
        if attempt != self.position.attempt:
            self.position = Position(attempt)

    def _delta(self, text: str) -> Iterator[Event]:
        if not text:
            return
        attempt, offset, _ = self.position
        self.position = Position(attempt, offset + len(text.encode()))
        data = {"type": "prompt.delta", "id": self.prompt_id, "attempt": attempt, "offset": offset, "text": text}
        yield Event("prompt.delta", data, self.position)

    def _last_event(self, prompt: PromptRow) -> Event:
        kind = f"prompt.{prompt.status}"
        position = Position(prompt.attempt, is_end=True)
        return Event(kind, {"type": kind, **prompt_resource(prompt, self.caller.username)}, position, prompt)
