"""Parts of every request: its id, its JSON body, its log line and its metrics."""

import re
import time
from functools import cache
from http import HTTPStatus
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

#: The most arrays and objects in a body. Half a million take 0.3 s, mostly of the garbage collector.
MAX_CONTAINERS = 10_000
#: The limit of bodies that are small, also because their senders are not logged in yet. The longest valid one has a
#: password of 1,024 escaped characters.
SMALL_BODY_BYTES = 16 * 1024
#: A request that takes longer, apart from `Prefer: wait`, is logged as a warning.
SLOW_SECONDS = 1.0

# Blueprints of pages, their files, and what monitors read: their requests are many, and say nothing if they succeed.
_QUIET = frozenset({"docs", "ops", "page"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# It also matches an unterminated string, and never backtracks: otherwise its time would be quadratic in the body.
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


class JsonRequest(Request):
    """A request whose body must be a JSON object in UTF-8."""

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the object. `force` and `silent` have no effect.

        Raises:
            UnsupportedMediaType, BadRequest, RequestEntityTooLarge: the body is something else.
        """
        if not self.is_json:
            raise UnsupportedMediaType("Send the body as application/json.")
        data = self.get_data(cache=cache)
        limit = self.max_content_length
        if self.content_length is None and limit is not None and len(data) >= limit:
            # Werkzeug silently truncates a chunked body at the limit.
            raise RequestEntityTooLarge
        if _count_containers(data) > MAX_CONTAINERS:
            raise BadRequest(f"The body has more than {MAX_CONTAINERS} arrays and objects.")
        try:
            value = from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise BadRequest(f"The body is not valid JSON: {error}.") from error
        if not isinstance(value, dict):
            raise BadRequest("The body must be a JSON object.")
        return value


class Json(JSONProvider):
    """Flask's JSON by pydantic, which is several times as fast as the standard library."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return to_json(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return from_json(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        data = to_json(self._prepare_response_obj(args, kwargs)) + b"\n"
        return Response(data, mimetype="application/json")


def request_id() -> str:
    """The id of this request: the client's, or a generated one."""
    current: str = g.request_id
    return current


def resolve_request_id(header: str | None) -> str:
    """Return the client's X-Request-ID if it is valid, else a new one."""
    return header if header is not None and _REQUEST_ID.fullmatch(header) else uuid4().hex


def elapsed_ms() -> int:
    """For how long this request has been handled, in milliseconds."""
    started: float = g.started
    return round((time.perf_counter() - started) * 1000)


def route_template() -> str:
    """The template of this request's path, as in the OpenAPI document; `other` if no route matches."""
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


def limit_body() -> None:
    """Limit the request's body to SMALL_BODY_BYTES. Use it as a blueprint's `before_request`."""
    request.max_content_length = min(SMALL_BODY_BYTES, request.max_content_length or SMALL_BODY_BYTES)


def exclude_wait(seconds: float) -> None:
    """Exclude the time that this request waited, as its client asked, from its duration."""
    g.waited = seconds


def _count_containers(data: bytes) -> int:
    """Count the arrays and objects in a JSON text. A count of at most MAX_CONTAINERS may be too high."""
    count = data.count(b"[") + data.count(b"{")
    if count <= MAX_CONTAINERS:
        return count
    outside = _JSON_STRING.sub(b"", data)
    return outside.count(b"[") + outside.count(b"{")


def _begin() -> None:
    g.request_id = resolve_request_id(request.headers.get("X-Request-ID"))
    g.started = time.perf_counter()
    clear_contextvars()
    bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    seconds = time.perf_counter() - g.started - g.get("waited", 0.0)
    method = request.method if request.method in _METHODS else "other"
    metrics.requests(route_template(), method, response.status_code // 100).observe(seconds)
    is_slow = seconds >= SLOW_SECONDS
    is_quiet = request.blueprint in _QUIET and response.status_code < HTTPStatus.BAD_REQUEST
    write = log.warning if is_slow else log.debug if is_quiet else log.info
    write(
        "slow request" if is_slow else "request",
        method=request.method,
        path=request.path,
        status=response.status_code,
        ms=round(seconds * 1000, 1),
    )
    return response
