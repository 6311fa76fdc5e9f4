"""Responses that are server-sent events."""

from collections.abc import Iterable

from flask import Response

#: A comment, which keeps the connection open.
HEARTBEAT = ":\n\n"
#: The end of a stream of OpenAI's API.
DONE = "data: [DONE]\n\n"


def event_stream(chunks: Iterable[str]) -> Response:
    """A response that sends each chunk as soon as there is one."""
    return unbuffered(Response(chunks, mimetype="text/event-stream"))


def unbuffered(response: Response) -> Response:
    """The response, which nginx would buffer otherwise."""
    response.headers["X-Accel-Buffering"] = "no"
    return response
