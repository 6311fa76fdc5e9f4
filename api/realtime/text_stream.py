"""Following one prompt's text as it is generated, by anybody, from anywhere in it.

A follower is at a position: an attempt, and so many bytes of its text. What is after that comes from Redis while the
prompt is worked on and from Postgres once it has ended. Announcements only say when to look.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Engine

from api.auth.token_cache import Principal, is_alive
from api.http.schemas import prompt_resource
from api.realtime.fair_semaphore import FairSemaphore
from api.realtime.relay import Relay, Subscription
from shared.db.models import UNFINISHED, Status
from shared.errors import PromptNotFoundError
from shared.messaging.partial_text import PartialText
from shared.prompts import queries
from shared.prompts.queries import PromptRow
from shared.telemetry import metrics

HEARTBEAT_SECONDS = 15.0
#: A client that takes nothing for so long is left.
PATIENCE_SECONDS = 60.0


class Position(NamedTuple):
    """How much of a prompt's text a client has. As text: `2-140`, and `2-end` once it has been told the end."""

    attempt: int = 0
    offset: int = 0  #: in bytes of UTF-8
    is_end: bool = False

    def __str__(self) -> str:
        return f"{self.attempt}-{'end' if self.is_end else self.offset}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises ValueError if that is none."""
        found = re.fullmatch(r"(\d{1,18})-(?:(\d{1,18})|end)", text, re.ASCII)
        if found is None:
            raise ValueError
        return cls(int(found[1]), int(found[2] or 0), is_end=found[2] is None)


class Event(NamedTuple):
    """What a follower is told: with the position that it then has, if that is another. Without a kind, it is nothing:
    a sign of life."""

    kind: str | None = None
    data: dict[str, object] | None = None
    position: Position | None = None


@dataclass
class TextStream:
    """Follows a user's prompt until it has ended, the login has, or this process goes down."""

    relay: Relay
    engine: Engine
    db_slots: FairSemaphore
    partial_text: PartialText
    caller: Principal
    prompt_id: int
    position: Position
    heartbeat_seconds: float = HEARTBEAT_SECONDS

    def events(self) -> Iterator[Event]:
        """The rest of the text in pieces, then how it ended."""
        with metrics.streams.track_inprogress(), self.relay.subscribe(self.caller.id) as news:
            yield Event()  # so that the client sees at once that there is somebody
            while True:
                try:
                    prompt, seen = self._read()
                except PromptNotFoundError:
                    yield Event("prompt.deleted", {"type": "prompt.deleted", "id": self.prompt_id})
                    return
                yield from self._text_of(prompt)
                if prompt.status not in UNFINISHED:
                    yield self._ending_of(prompt)
                    return
                yield from self._live(news, seen)
                if news.closed or not self._is_alive():
                    return

    def _live(self, news: Subscription, seen: int) -> Iterator[Event]:
        """Tells text as it comes, until there is a reason to look at the prompt again; at times there is anyhow."""
        until = time.monotonic() + min(self.heartbeat_seconds, self.caller.expires_at - time.time())
        while True:
            announcement = news.get(until - time.monotonic())
            if announcement is None:
                yield Event()
                return
            if announcement.seq is None:
                if announcement.prompt_id is None:  # a login of the user's has ended
                    return
                if announcement.prompt_id == self.prompt_id:
                    yield from self._running_text(announcement.attempt)
            # One without a prompt comes in place of one that was lost, which may have been of this one.
            elif announcement.prompt_id in (None, self.prompt_id) or announcement.seq > seen + 1:
                return
            else:
                seen = max(seen, announcement.seq)

    def _text_of(self, prompt: PromptRow) -> Iterator[Event]:
        if prompt.status == Status.PROCESSING:
            yield from self._running_text(prompt.attempt)
        elif prompt.status == Status.COMPLETED and prompt.answer.response_text is not None:
            self._begin(prompt.attempt)
            rest = prompt.answer.response_text.encode()[self.position.offset :].decode(errors="ignore")
            yield from self._delta(rest)

    def _running_text(self, attempt: int) -> Iterator[Event]:
        if attempt < self.position.attempt:
            return
        self._begin(attempt)
        yield from self._delta(self.partial_text.read(self.prompt_id, attempt, self.position.offset))

    def _begin(self, attempt: int) -> None:
        """A new attempt has another text, from its beginning."""
        if attempt != self.position.attempt:
            self.position = Position(attempt)

    def _delta(self, text: str) -> Iterator[Event]:
        if not text:
            return
        attempt, offset, _ = self.position
        self.position = Position(attempt, offset + len(text.encode()))
        data = {"type": "prompt.delta", "id": self.prompt_id, "attempt": attempt, "offset": offset, "text": text}
        yield Event("prompt.delta", data, self.position)

    def _ending_of(self, prompt: PromptRow) -> Event:
        kind = f"prompt.{prompt.status}"
        position = Position(prompt.attempt, is_end=True)
        return Event(kind, {"type": kind, **prompt_resource(prompt, self.caller.username)}, position)

    def _read(self) -> tuple[PromptRow, int]:
        with self.db_slots, self.engine.connect() as connection:
            return queries.get_with_seq(connection, self.caller.id, self.prompt_id)

    def _is_alive(self) -> bool:
        with self.db_slots:
            return is_alive(self.engine, self.caller)
