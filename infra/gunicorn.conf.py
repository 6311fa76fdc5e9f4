"""gunicorn's configuration: gevent workers, which hold REST and thousands of sockets on one port."""

import os
import signal
from types import FrameType
from typing import Any

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("API_PROCESSES", "1"))
worker_class = "gevent"
worker_connections = 20_000
# Requests that wait (`Prefer: wait=60`) are woken up when the process goes down; this is for slow clients.
graceful_timeout = 5
keepalive = 30
# It would lie in the home folder.
control_socket_disable = True
# The application logs requests itself, without query strings.
accesslog = None
errorlog = "-"
loglevel = "warning"


def post_fork(server: Any, worker: Any) -> None:
    """Lets psycopg2 yield to other greenlets while it waits for Postgres."""
    from psycogreen.gevent import patch_psycopg

    patch_psycopg()


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
