"""`GET /metrics` of a worker host: the metrics of its main process and of those that it has forked."""

import socket
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import structlog
from celery import bootsteps
from prometheus_client.exposition import ThreadingWSGIServer

from shared.settings import Settings
from shared.telemetry import exposition, metrics_folder
from shared.telemetry.exposition import MetricsAccessError
from shared.telemetry.sampler import Sampler

log = structlog.get_logger(__name__)

_REQUEST_TIMEOUT_SECONDS = 10.0

StartResponse = Callable[..., Any]


class _Handler(WSGIRequestHandler):
    timeout = _REQUEST_TIMEOUT_SECONDS

    def log_message(self, *_: Any) -> None:
        """Log nothing: Prometheus reads the metrics every few seconds."""


class _Ipv6Server(ThreadingWSGIServer):
    address_family = socket.AF_INET6


def _server_class(host: str) -> type[ThreadingWSGIServer]:
    return _Ipv6Server if ":" in host else ThreadingWSGIServer


class MetricsServer:
    """Serves the metrics on LISTEN_ADDRESS and WORKER_METRICS_PORT, unless the port is taken."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: Any = None

    def start(self) -> None:
        host, port = self._settings.listen_address, self._settings.worker_metrics_port
        try:
            self._server = make_server(host, port, self, server_class=_server_class(host), handler_class=_Handler)
        except OSError as error:
            log.warning(
                "metrics not served, set WORKER_METRICS_PORT to a different port for each worker on a machine",
                host=host,
                port=port,
                error=error.strerror,
            )
            return
        threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"].rstrip("/") != "/metrics":
            return _answer(start_response, HTTPStatus.NOT_FOUND, b"The metrics are at /metrics.\n")
        try:
            exposition.check_access(self._settings, environ.get("REMOTE_ADDR"), environ.get("HTTP_AUTHORIZATION"))
        except MetricsAccessError as error:
            status = HTTPStatus.UNAUTHORIZED if error.needs_token else HTTPStatus.FORBIDDEN
            return _answer(start_response, status, f"{error}\n".encode())
        metrics_folder.forget_dead()
        rendered = exposition.render(environ.get("HTTP_ACCEPT", ""))
        return _answer(start_response, HTTPStatus.OK, rendered.body, rendered.content_type)


def _answer(
    start_response: StartResponse, status: HTTPStatus, body: bytes, content_type: str = "text/plain"
) -> list[bytes]:
    headers = [("Content-Type", content_type), ("Content-Length", str(len(body)))]
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append(("WWW-Authenticate", "Bearer"))
    start_response(f"{status.value} {status.phrase}", headers)
    return [body]


def as_bootstep(settings: Settings) -> type[bootsteps.StartStopStep]:
    """A part of the Celery worker that serves the metrics from its main process, if WORKER_METRICS_PORT is set."""

    class MetricsStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._server = MetricsServer(settings)

        def include_if(self, parent: Any) -> bool:
            return settings.worker_metrics_port > 0

        def start(self, parent: Any) -> None:
            Sampler({}).start()
            self._server.start()

        def stop(self, parent: Any) -> None:
            self._server.stop()

        terminate = stop

    return MetricsStep
