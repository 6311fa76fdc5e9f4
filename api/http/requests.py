"""What happens to every request: its id, its body's checks, its log line."""

import re
import time
from functools import cache
from typing import Any
from uuid import uuid4

import structlog
from flask import Flask, Request, Response, g, request
from flask.json.provider import JSONProvider
from pydantic_core import from_json, to_json
from structlog.contextvars import bind_contextvars, clear_contextvars
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge, UnsupportedMediaType

from shared.telemetry import metrics

log = structlog.get_logger(__name__)

#: A request that takes longer, without what it asked to wait, is logged as a warning.
SLOW_SECONDS = 1.0

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class JsonRequest(Request):
    """A request whose body, where one is read, is a JSON object in UTF-8."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """The object, whatever the arguments.

        Raises:
            UnsupportedMediaType, BadRequest, RequestEntityTooLarge: it is something else.
        """
        if not self.is_json:
            raise UnsupportedMediaType("Send the body as application/json.")
        data = self.get_data(cache=cache)
        limit = self.max_content_length
        if self.content_length is None and limit is not None and len(data) >= limit:
            # Werkzeug cuts a chunked body off at the limit, without a word.
            raise RequestEntityTooLarge
        try:
            value = from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise BadRequest(f"The body is not valid JSON: {error}.") from error
        if not isinstance(value, dict):
            raise BadRequest("The body must be a JSON object.")
        return value


class Json(JSONProvider):
    """How Flask reads and writes JSON: by pydantic, which is several times as fast as the standard library."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return to_json(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return from_json(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        data = to_json(self._prepare_response_obj(args, kwargs)) + b"\n"
        return Response(data, mimetype="application/json")


def request_id() -> str:
    """The id of this request: the client's, or one that was made."""
    found: str = g.request_id
    return found


def id_of(given: str | None) -> str:
    """The id that a request is given, or a new one if that is none."""
    return given if given is not None and _REQUEST_ID.fullmatch(given) else uuid4().hex


def route() -> str:
    """The template of this request's path, as the API's description has it; anything else is `other`."""
    rule = request.url_rule
    return "other" if rule is None else _template(rule.rule)


@cache
def _template(rule: str) -> str:
    return re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule)


def init_app(app: Flask) -> None:
    app.request_class = JsonRequest
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(lambda _: clear_contextvars())


def _begin() -> None:
    g.request_id = id_of(request.headers.get("X-Request-ID"))
    g.started = time.perf_counter()
    clear_contextvars()
    bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    seconds = time.perf_counter() - g.started - g.get("waited", 0.0)
    method = request.method if request.method in _METHODS else "other"
    metrics.requests(route(), method, response.status_code // 100).add(seconds)
    write = log.info if seconds < SLOW_SECONDS else log.warning
    write(
        "request" if seconds < SLOW_SECONDS else "slow request",
        method=request.method,
        path=request.path,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
    )
    return response


def waited(seconds: float) -> None:
    """Notes that so much of this request's time is what it asked to wait."""
    g.waited = seconds
