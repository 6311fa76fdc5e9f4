"""Refusing submissions that there is no room for, before Flask looks at them.

To refuse one must cost much less than to take one in: otherwise refusals are what an overloaded process does all day.
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

_LOG_SECONDS = 1.0

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class LoadShedder:
    """A WSGI application around another one, in which `is_overloaded` tells whether submissions are refused."""

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
        """Counts it, and logs how many were refused, now and then."""
        metrics.overload_refusals.inc()
        self._refused += 1
        if time.monotonic() >= self._log_at:
            log.warning("overloaded: submissions refused", refused=self._refused)
            self._refused, self._log_at = 0, time.monotonic() + _LOG_SECONDS


def _is_submission(environ: dict[str, Any]) -> bool:
    """Whether it is one, and not from a browser's page on another host, to which only Flask's answers are readable."""
    is_post = environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"] in ("/prompts/", "/prompts")
    return is_post and "HTTP_ORIGIN" not in environ
