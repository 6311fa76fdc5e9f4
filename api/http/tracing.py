"""A span for each request, if tracing is on."""

from http import HTTPStatus

from flask import Flask, Response, g, request

from api.http.requests import request_id, route_template
from shared.telemetry import tracing


def init_app(app: Flask) -> None:
    if tracing.is_on():
        app.before_request(_begin)
        app.after_request(_note_status)
        app.teardown_request(lambda _: _end())


def _begin() -> None:
    g.span = tracing.start_request(request.headers.get("traceparent"))


def _note_status(response: Response) -> Response:
    g.status = response.status_code
    return response


def _end() -> None:
    span, status = g.pop("span", None), g.pop("status", HTTPStatus.INTERNAL_SERVER_ERROR)
    if span is not None:
        # The names are those of OpenTelemetry's semantic conventions.
        attributes = {
            "http.request.method": request.method,
            "http.route": route_template(),
            "http.response.status_code": int(status),
            "promptwire.request_id": request_id(),
        }
        span.end(f"{request.method} {route_template()}", attributes, failed=status >= HTTPStatus.INTERNAL_SERVER_ERROR)
