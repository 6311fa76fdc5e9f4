"""Refusing submissions of an overloaded process before Flask handles them.

A refusal must cost much less than an accepted submission: otherwise an overloaded process does nothing but refuse.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Self

import structlog
from flask import Response

from api.http.requests import resolve_request_id
from shared.telemetry import metrics

log = structlog.get_logger(__name__)

_LOG_INTERVAL_SECONDS = 1.0

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

    def _refusal(self, environ: dict[str, Any]) -> "_Refusal | None":
        """The refusal of a submission; None for other requests.

        None, too, for one from another origin: a browser reads only answers with CORS headers.
        """
        if environ["REQUEST_METHOD"] != "POST" or "HTTP_ORIGIN" in environ:
            return None
        return self._refusals.get(environ["PATH_INFO"].removesuffix("/"))

    def _count(self) -> None:
        """Count a refusal, and log the number of them at most once a second."""
        metrics.overload_refusals.inc()
        self._refused += 1
        if time.monotonic() >= self._log_at:
            log.warning("overloaded, submissions refused", refused=self._refused)
            self._refused, self._log_at = 0, time.monotonic() + _LOG_INTERVAL_SECONDS


class _Refusal(NamedTuple):
    """A response, as WSGI has it."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @classmethod
    def from_response(cls, response: Response) -> Self:
        usual = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        return cls(response.status, [*response.headers.to_wsgi_list(), *usual], response.get_data())
