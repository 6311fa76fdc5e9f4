"""gunicorn's configuration: gevent workers, which hold REST and thousands of sockets on one port."""

import json
import os
import signal
import socket
from http import HTTPStatus
from types import FrameType
from typing import Any

from gunicorn import util

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("API_PROCESSES", "1"))
worker_class = "gevent"
worker_connections = 20_000
# Requests that wait (`Prefer: wait=60`) are woken up when the process goes down; this is for slow clients.
graceful_timeout = 5
keepalive = 30
# As long as gunicorn admits: the text that `GET /prompts/similar/` looks for is in there.
limit_request_line = 8190
# It would lie in the home folder.
control_socket_disable = True
# The application logs requests itself, without query strings.
accesslog = None
errorlog = "-"
loglevel = "warning"


def _write_problem(client: socket.socket, status: int, reason: str, message: str) -> None:
    """What gunicorn answers by itself, to requests that are not HTTP or too long, in the shape of all our errors."""
    title = HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": title, "status": status, "detail": message or title}
    body = json.dumps(problem).encode()
    head = f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    util.write_nonblock(client, head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


util.write_error = _write_problem


def post_fork(server: Any, worker: Any) -> None:
    """Before anything connects."""
    from api import postgres_wait

    postgres_wait.install()


def post_worker_init(worker: Any) -> None:
    """On SIGTERM first says goodbye to the sockets (1012); otherwise they would hold up the stop and then break."""
    import gevent

    from api.wsgi import services

    previous = signal.getsignal(signal.SIGTERM)

    def stop(signum: int, frame: FrameType | None) -> None:
        # A signal handler must not block: what closes runs beside.
        gevent.spawn(services.relay.shut_down)
        if callable(previous):
            previous(signum, frame)

    signal.signal(signal.SIGTERM, stop)
