"""Refusing submissions of an overloaded process before Flask handles them.

A refusal must cost much less than an accepted submission: otherwise an overloaded process does nothing but refuse.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from api.http import problems
from api.http.requests import resolve_request_id
from shared.errors import OverloadedError
from shared.telemetry import metrics

log = structlog.get_logger(__name__)

_LOG_INTERVAL_SECONDS = 1.0

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class LoadShedder:
    """WSGI middleware that refuses submissions while `is_overloaded` returns True."""

    def __init__(self, app: Wsgi, is_overloaded: Callable[[], bool]) -> None:
        self._app = app
        self._is_overloaded = is_overloaded
        refusal = problems.from_error(OverloadedError())
        self._status, self._body = refusal.status, refusal.get_data()
        self._headers = [
            *refusal.headers.to_wsgi_list(),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        self._refused = 0
        self._log_at = 0.0

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if not (self._is_overloaded() and _is_submission(environ)):
            return self._app(environ, start_response)
        self._count()
        headers = [*self._headers, ("X-Request-ID", resolve_request_id(environ.get("HTTP_X_REQUEST_ID")))]
        start_response(self._status, headers)
        return [self._body]

    def _count(self) -> None:
        """Count a refusal, and log the number of them at most once a second."""
        metrics.overload_refusals.inc()
        self._refused += 1
        if time.monotonic() >= self._log_at:
            log.warning("overloaded, submissions refused", refused=self._refused)
            self._refused, self._log_at = 0, time.monotonic() + _LOG_INTERVAL_SECONDS


def _is_submission(environ: dict[str, Any]) -> bool:
    """Whether it is a submission. Not one from another origin: a browser reads only answers with CORS headers."""
    is_post = environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] in ("/prompts/", "/prompts")
    return is_post and "HTTP_ORIGIN" not in environ
