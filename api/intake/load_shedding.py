"""Refusing submissions of an overloaded process before Flask handles them.

A refusal must cost much less than an accepted submission: otherwise an overloaded process does nothing but refuse. So
an ordinary submission is refused from the bytes of its request, before gunicorn parses them (`LoadShedder.answer`), and
any other one by middleware, which costs more.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Self
from uuid import uuid4

import structlog
from flask import Response

from api.http.requests import resolve_request_id
from shared.telemetry import metrics

log = structlog.get_logger(__name__)

#: The key of an application's load shedder among its extensions.
LOAD_SHEDDER = "promptwire.load_shedder"

_LOG_INTERVAL_SECONDS = 1.0
#: The head of an ordinary submission: its path, and its header fields, each behind a line end.
_HEAD = re.compile(rb"POST (/[a-z0-9/_-]*) HTTP/1\.1((?:\r\n[A-Za-z0-9-]+: ?[!-~][ -~]*)+)\r\n\r\n")
# Of header fields in lower case.
_FIELD_NAME = re.compile(rb"\r\n([a-z0-9-]+):")
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,9}) *(?:\r|\Z)")
#: With one of these the request is left to gunicorn and to the middleware.
_NOT_ORDINARY = frozenset(
    (b"connection", b"expect", b"origin", b"trailer", b"transfer-encoding", b"upgrade", b"x-request-id")
)

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class LoadShedder:
    """WSGI middleware that refuses submissions while `is_overloaded` returns True.

    Args:
        refusals: What a submission gets, by its path without a slash at the end.
    """

    def __init__(self, app: Wsgi, is_overloaded: Callable[[], bool], refusals: Mapping[str, Response]) -> None:
        self._app = app
        self._is_overloaded = is_overloaded
        self._refusals = {path: _Refusal.from_response(response) for path, response in refusals.items()}
        self._refused = 0
        self._log_at = 0.0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        refusal = self._refusal(environ) if self._is_overloaded() else None
        if refusal is None:
            return self._app(environ, start_response)
        self._count()
        headers = [*refusal.headers, ("X-Request-ID", resolve_request_id(environ.get("HTTP_X_REQUEST_ID")))]
        start_response(refusal.status, headers)
        return [refusal.body]

    def answer(self, data: bytes) -> bytes | None:
        """The refusal of the request that is in these bytes: the first ones of a request, as they arrived.

        None unless they are exactly one whole ordinary submission, and the process is overloaded. When in doubt it is
        None: who answers a part of a request, or one request too few, mixes up the answers of a connection.
        """
        if not self._is_overloaded():
            return None
        head = _HEAD.match(data)
        refusal = None if head is None else self._refusal_at(head[1].decode())
        if head is None or refusal is None:
            return None
        fields = head[2].lower()
        names = _FIELD_NAME.findall(fields)
        length = _CONTENT_LENGTH.search(fields)
        if length is None or names.count(b"content-length") > 1 or not _NOT_ORDINARY.isdisjoint(names):
            return None
        if head.end() + int(length[1]) != len(data):
            return None
        self._count()
        return refusal.head + f"X-Request-ID: {uuid4().hex}\r\n\r\n".encode() + refusal.body

    def _refusal(self, environ: dict[str, Any]) -> "_Refusal | None":
        """The refusal of a submission; None for other requests.

        None, too, for one from another origin: a browser reads only answers with CORS headers.
        """
        if environ["REQUEST_METHOD"] != "POST" or "HTTP_ORIGIN" in environ:
            return None
        return self._refusal_at(environ["PATH_INFO"])

    def _refusal_at(self, path: str) -> "_Refusal | None":
        return self._refusals.get(path.removesuffix("/"))

    def _count(self) -> None:
        """Count a refusal, and log the number of them at most once a second."""
        metrics.overload_refusals.inc()
        self._refused += 1
        if time.monotonic() >= self._log_at:
            log.warning("overloaded, submissions refused", refused=self._refused)
            self._refused, self._log_at = 0, time.monotonic() + _LOG_INTERVAL_SECONDS


class _Refusal(NamedTuple):
    """A response, as WSGI has it, and its head as HTTP has it, without the last header and the empty line."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes
    head: bytes

    @classmethod
    def from_response(cls, response: Response) -> Self:
        usual = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        headers = [*response.headers.to_wsgi_list(), *usual]
        lines = [f"HTTP/1.1 {response.status}", *(f"{name}: {value}" for name, value in headers), ""]
        return cls(response.status, headers, response.get_data(), "\r\n".join(lines).encode())
