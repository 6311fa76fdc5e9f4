"""gunicorn's settings. The worker, its log and its responses are code, in api/server."""

import os
import sys

from api.server import gunicorn_responses
from api.server.gunicorn_logger import GunicornLogger
from api.server.listening_socket import socket_closing
from shared.settings import SettingsError, load_settings
from shared.settings.values import bracketed
from shared.telemetry import metrics_folder

try:
    settings = load_settings()
except SettingsError as error:
    sys.exit(f"The API cannot start.\n{error}")  # once, here, and not by each worker

bind = f"{bracketed(settings.listen_address)}:{settings.port}"
workers = settings.api_processes
worker_class = "api.server.gunicorn_worker.GunicornWorker"
worker_connections = 20_000
# Requests that wait (`Prefer: wait=60`) are woken up when the process stops; this is for slow clients, and for a
# process that gets SIGTERM while it starts on a busy machine.
graceful_timeout = 8
# Longer than the idle timeout of the load balancer (infra/aws/load_balancer.tf), which else uses closing connections.
keepalive = 75
# The maximum that gunicorn allows: `GET /prompts/similar/` carries its text there.
limit_request_line = 8190
# The application decides which headers of a proxy count (TRUSTED_PROXIES). By default gunicorn takes the scheme and the
# path from clients on this machine, and so from the clients of a proxy on this machine.
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
# It would be created in the home folder.
control_socket_disable = True
# Each worker touches a file there to show that it lives; a disk might stall.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108  # nosec B108
# The application logs requests itself, without query strings.
accesslog = None
errorlog = "-"
loglevel = "info"  # until the logger has read LOG_LEVEL
logger_class = GunicornLogger

gunicorn_responses.install()
metrics_folder.make()


def when_ready(server: object) -> None:
    socket_closing.watch(server)


def child_exit(_: object, worker: object) -> None:
    metrics_folder.forget(worker.pid)  # type: ignore[attr-defined]
