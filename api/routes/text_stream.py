"""A prompt's text as server-sent events (HTML Standard, section 9.2)."""

from collections.abc import Iterator
from http import HTTPStatus

import structlog
from flask import Response, request
from flask_openapi3 import APIBlueprint, Tag
from sqlalchemy.exc import SQLAlchemyError

from api.auth import tokens
from api.http.openapi.examples import STREAM
from api.http.openapi.responses import empty, problem_responses
from api.http.schemas import FollowHeaders, PromptPath
from api.realtime.text_stream import PATIENCE_SECONDS, Event, Position, TextStream
from api.services import services
from shared.db.models import UNFINISHED
from shared.errors import PromptNotFoundError
from shared.messaging import announcements
from shared.prompts import queries
from shared.telemetry import metrics

log = structlog.get_logger(__name__)

RETRY_MILLISECONDS = 1_000

bp = APIBlueprint(
    "following",
    __name__,
    url_prefix="/prompts",
    abp_tags=[Tag(name="Prompts")],
    abp_security=[{"bearer": []}],
    abp_responses=problem_responses(400, 401, PromptNotFoundError(), 500, 503),
)
bp.before_request(tokens.authenticate)

_TOLD = empty("`prompt.delta` events with the text, then one event with the finished prompt.") | {
    "content": {"text/event-stream": {"example": STREAM}}  # OpenAPI 3.1 has no words for what an event is
}


@bp.get(
    "/<int:prompt_id>/stream/",
    operation_id="followPrompt",
    responses={200: _TOLD, 204: empty("The client has been told the end; an `EventSource` stops asking.")},
)
def follow(path: PromptPath, header: FollowHeaders) -> Response:
    """A prompt's text as it is generated: all there is so far, the rest as it comes, then how it ended.

    Server-sent events. The last one is `prompt.completed`, `prompt.failed` or `prompt.cancelled`, with the prompt; then
    the response ends. With `Last-Event-ID` it goes on from where that client was, after any disconnection and on any
    host. An event with a higher `attempt` than before begins the text anew. Comments are signs of life.
    """
    caller = tokens.current()
    position = Position.parse(header.last_event_id) if header.last_event_id else Position()
    with services().db_slots, services().autocommit_engine.connect() as connection:
        prompt = queries.get(connection, caller.id, path.prompt_id)
    if position.is_end and position.attempt == prompt.attempt and prompt.status not in UNFINISHED:
        return Response(status=HTTPStatus.NO_CONTENT)  # has an EventSource stop asking
    if "gunicorn.socket" in request.environ:
        request.environ["gunicorn.socket"].settimeout(PATIENCE_SECONDS)
    told = TextStream(services(), caller, prompt.id, Position() if position.is_end else position).events()
    response = Response(_encoded(told), mimetype="text/event-stream")
    response.headers["X-Accel-Buffering"] = "no"  # nginx would keep it back
    return response


def _encoded(told: Iterator[Event]) -> Iterator[str]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    try:
        for event in told:
            yield _encode(event)
    except SQLAlchemyError as error:  # the client comes back, to where it was
        log.warning("stream ended, database away", error=type(error).__name__)


def _encode(event: Event) -> str:
    if event.kind is None:
        return ":\n\n"
    metrics.stream_events.add()
    position = "" if event.position is None else f"id: {event.position}\n"
    return f"{position}event: {event.kind}\ndata: {announcements.to_json(event.data)}\n\n"
