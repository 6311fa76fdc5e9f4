"""gunicorn's settings."""

from typing import Any

workers = 1
worker_class = "gevent"
worker_connections = 10_000
keepalive = 30
control_socket_disable = True  # it would be created in the home folder
loglevel = "warning"


def post_fork(server: Any, worker: Any) -> None:
    """Let other greenlets run while one waits for PostgreSQL."""
    from psycogreen.gevent import patch_psycopg

    patch_psycopg()
