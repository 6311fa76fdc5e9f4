"""A prompt's text as server-sent events (HTML Standard, section 9.2)."""

from collections.abc import Callable, Iterator
from http import HTTPStatus

import structlog
from flask import Response
from flask_openapi3 import Tag
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.auth.permissions import require_prompts
from api.auth.principal import Principal, current_principal
from api.auth.tokens import Authenticator
from api.http.event_stream import HEARTBEAT, event_stream
from api.http.openapi.blueprint import Blueprint
from api.http.openapi.prompt_examples import STREAM
from api.http.openapi.responses import TOO_MANY_WAITS, Responses, empty_response, error_responses
from api.http.prompt_schemas import FollowHeaders, PromptPath
from api.intake.user_slots import UserSlots
from api.realtime.fair_semaphore import FairSemaphore
from api.realtime.text_stream import Event, Position, TextStream
from shared.db.models import UNFINISHED, Scope
from shared.errors import InsufficientScopeError, PromptNotFoundError
from shared.messaging import announcements
from shared.prompts import queries
from shared.telemetry import metrics

log = structlog.get_logger(__name__)

RETRY_MILLISECONDS = 1_000

_EVENTS = "`prompt.delta` events with the text, then one event with the finished prompt."
FOLLOW: Responses = {
    # OpenAPI 3.1 cannot describe the events of a stream.
    200: empty_response(_EVENTS) | {"content": {"text/event-stream": {"example": STREAM}}},
    204: empty_response("The client has received the last event; an `EventSource` stops reconnecting."),
    **error_responses(TOO_MANY_WAITS),
}


class TextStreamRoutes:
    """The view of a prompt's text stream.

    Args:
        make_stream: Makes the stream of a principal's prompt from a position in its text.
        slots: Limits the streams and waiting requests of a user.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        engine: Engine,
        db_slots: FairSemaphore,
        make_stream: Callable[[Principal, int, Position], TextStream],
        slots: UserSlots,
    ) -> None:
        self._authenticator = authenticator
        self._engine = engine
        self._db_slots = db_slots
        self._make_stream = make_stream
        self._slots = slots

    def blueprint(self) -> Blueprint:
        bp = Blueprint(
            "text_stream",
            __name__,
            url_prefix="/prompts",
            abp_tags=[Tag(name="Prompts")],
            abp_security=[{"bearer": []}],
            abp_responses=error_responses(
                400, 401, InsufficientScopeError(Scope.PROMPTS_READ), PromptNotFoundError(), 500, 503
            ),
        )
        bp.before_request(self._authenticator.authenticate_request)
        bp.before_request(require_prompts)
        bp.get("/<int:prompt_id>/stream/", operation_id="followPrompt", responses=FOLLOW)(self.follow)
        return bp

    def follow(self, path: PromptPath, header: FollowHeaders) -> Response:
        """Stream a prompt's text as it is generated: the text so far, the rest as it comes, then the finished prompt.

        Server-sent events. The last one is `prompt.completed`, `prompt.failed` or `prompt.cancelled`, with the prompt;
        then the response ends. With `Last-Event-ID` the stream resumes where the client was, after any disconnection
        and on any host. An event with a higher `attempt` than before restarts the text. Comments are heartbeats.
        """
        principal = current_principal()
        position = Position.parse(header.last_event_id) if header.last_event_id else Position()
        with self._db_slots, self._engine.connect() as connection:
            prompt = queries.get(connection, principal.id, path.prompt_id)
        if position.is_end and position.attempt == prompt.attempt and prompt.status not in UNFINISHED:
            return Response(status=HTTPStatus.NO_CONTENT)
        stream = self._make_stream(principal, prompt.id, Position() if position.is_end else position)
        return self._slots.hold_while_sent(principal.id, lambda: event_stream(_encode_all(stream.events())))


def _encode_all(events: Iterator[Event]) -> Iterator[str]:
    yield f"retry: {RETRY_MILLISECONDS}\n\n"
    try:
        for event in events:
            yield _encode(event)
    except SQLAlchemyError as error:  # the client reconnects, and resumes
        log.warning("postgres unavailable, stream ended", error=type(error).__name__)


def _encode(event: Event) -> str:
    if event.kind is None:
        return HEARTBEAT
    metrics.stream_events.inc()
    position = "" if event.position is None else f"id: {event.position}\n"
    return f"{position}event: {event.kind}\ndata: {announcements.to_json(event.data)}\n\n"
