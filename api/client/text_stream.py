"""An answer's text as it is generated: server-sent events, each once, across reconnects."""

import json
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from typing import cast

import httpx
from httpx_sse import EventSource, SSEError

from .errors import UnreachableError
from .http import foreign
from .resources import Event
from .retries import Patience, Pause, Retries
from .session import Session

#: The server gives a sign of life every 15 seconds.
_SILENCE_SECONDS = 45.0


def follow(
    session: Session, prompt_id: int, patience: Patience, pause: Pause, silence: float = _SILENCE_SECONDS
) -> Iterator[Event]:
    """The deltas of a prompt's text, from its beginning, then the event of its end.

    A stream that ends before, or of which nothing comes for `silence` seconds, is taken up where it was. After one that
    has brought something all the patience is there again. Raises what `Session.call` does.
    """
    last, retries = "", Retries(patience, pause)
    while True:
        with closing(_open(session, prompt_id, last, silence)) as response:
            if response.status_code == HTTPStatus.NO_CONTENT:  # all was told
                return
            heard, cause, come_back = False, "the server has ended it", None
            try:
                for told in EventSource(response).iter_sse():
                    heard, come_back = True, told.retry or come_back
                    if told.data:
                        last = told.id
                        yield cast(Event, json.loads(told.data))
                        if told.event != "prompt.delta":
                            return
            except (SSEError, ValueError) as error:
                raise foreign(response) from error
            except httpx.TransportError as error:
                cause = str(error) or type(error).__name__
        if heard:
            retries = Retries(patience, pause)
        retries.wait(
            UnreachableError(
                f"The text of prompt {prompt_id} broke off ({cause}).",
                retry_after=None if come_back is None else come_back / 1000,
            )
        )


def _open(session: Session, prompt_id: int, last: str, silence: float) -> httpx.Response:
    headers = {"Accept": "text/event-stream, application/problem+json", "Cache-Control": "no-store"}
    if last:
        headers["Last-Event-ID"] = last
    return session.call("GET", f"/prompts/{prompt_id}/stream/", headers=headers, silence=silence)
