"""The text of an answer while it is generated: server-sent events, each once, across reconnects."""

import json
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from typing import cast

import httpx
from httpx_sse import EventSource, SSEError

from .errors import UnreachableError
from .http import not_promptwire
from .resources import Event
from .retries import Retries, RetryLimits, Sleep
from .session import Session

#: The server sends at least a comment every 15 seconds.
_STREAM_TIMEOUT_SECONDS = 45.0


def follow(
    session: Session,
    prompt_id: int,
    limits: RetryLimits,
    sleep: Sleep,
    stream_timeout: float = _STREAM_TIMEOUT_SECONDS,
) -> Iterator[Event]:
    """Yield the deltas of a prompt's text from its beginning, then the event of its end.

    A stream that is interrupted, or silent for `stream_timeout` seconds, is resumed at the same place. A stream that
    sent anything resets the retry limits. Raises the errors of `Session.request`.
    """
    last_id, retries = "", Retries(limits, sleep)
    while True:
        with closing(_open(session, prompt_id, last_id, stream_timeout)) as response:
            if response.status_code == HTTPStatus.NO_CONTENT:  # the stream is complete
                return
            received, cause, retry_ms = False, "the server closed the stream", None
            try:
                for message in EventSource(response).iter_sse():
                    received, retry_ms = True, message.retry or retry_ms
                    if message.data:
                        last_id = message.id
                        yield cast(Event, json.loads(message.data))
                        if message.event != "prompt.delta":
                            return
            except (SSEError, ValueError) as error:
                raise not_promptwire(response) from error
            except httpx.TransportError as error:
                cause = str(error) or type(error).__name__
        if received:
            retries = Retries(limits, sleep)
        retries.wait(
            UnreachableError(
                f"The text of prompt {prompt_id} was interrupted ({cause}).",
                retry_after=None if retry_ms is None else retry_ms / 1000,
            )
        )


def _open(session: Session, prompt_id: int, last_id: str, stream_timeout: float) -> httpx.Response:
    headers = {"Accept": "text/event-stream, application/problem+json", "Cache-Control": "no-store"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    return session.request("GET", f"/prompts/{prompt_id}/stream/", headers=headers, stream_timeout=stream_timeout)
