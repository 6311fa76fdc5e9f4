"""Server-sent events, as a client reads them (HTML Standard, section 9.2.6)."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS


@dataclass
class ServerSentEvent:
    kind: str
    id: str
    data: dict[str, Any]


class EventStream:
    """The events of a prompt's text stream. Each must come within MAX_WAIT_SECONDS: heartbeats could go on for ever."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()
        self.heartbeats = 0

    def __iter__(self) -> Iterator[ServerSentEvent]:
        fields: dict[str, str] = {}
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        for line in self._lines:
            assert time.monotonic() < deadline, f"no event within {MAX_WAIT_SECONDS} s"
            name, _, value = line.partition(":")
            if line == "" and "data" in fields:
                yield ServerSentEvent(fields["event"], fields.get("id", ""), json.loads(fields["data"]))
                fields, deadline = {}, time.monotonic() + MAX_WAIT_SECONDS
            elif line and not name:
                self.heartbeats += 1
            elif line:
                fields[name] = value.removeprefix(" ")

    def next(self) -> ServerSentEvent:
        return next(iter(self))


@contextmanager
def follow(user: RemoteUser, prompt_id: int, after: str | None = None, *, url: str = "") -> Iterator[EventStream]:
    """Open a prompt's text stream, after an event if given, at the user's or another API process."""
    headers = {} if after is None else {"Last-Event-ID": after}
    with user.http.stream(
        "GET", f"{url}/prompts/{prompt_id}/stream/", headers=headers, timeout=MAX_WAIT_SECONDS
    ) as response:
        assert response.status_code == 200, response.read()
        yield EventStream(response)
