"""Flower: `python -m worker.flower`. It needs FLOWER_PASSWORD and a broker, and no other secrets.

Flower can show and stop all tasks, so everything but its health check is behind the password; Flower itself would also
serve its metrics and files without it. The password is read from the environment, because all users of a machine can
see command lines.

It remembers only events that it has received. So its health check succeeds once it receives them.
"""

import atexit
import hmac
import logging
import secrets
import signal
import sys
import threading
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import structlog
from celery import Celery
from celery.events import EventReceiver
from flower.app import Flower
from flower.command import apply_env_options
from flower.events import Events
from flower.options import default_options as options
from flower.urls import settings as tornado_settings
from flower.views import BaseHandler
from kombu import Connection

from shared.messaging.queue import connect_celery
from shared.settings import FlowerSettings, SettingsError, load_flower_settings
from shared.telemetry.logs import configure_logging

log = structlog.get_logger("worker.flower")  # __name__ is __main__

#: Who logs in with FLOWER_PASSWORD.
USER = "admin"
_RECONNECT_SECONDS = 1.0


class _PasswordRequired(BaseHandler):  # type: ignore[misc]
    """Refuses every request."""

    def prepare(self) -> None:
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="Flower", charset="UTF-8"')
        self.finish("Flower needs a password.\n")


class _Starting(BaseHandler):  # type: ignore[misc]
    """The health check until Flower receives events."""

    def prepare(self) -> None:
        self.set_status(503)
        self.finish("Flower is starting.\n")


class _Receiver(EventReceiver):  # type: ignore[misc]
    """Says when it receives events. kombu subscribes when it first waits for some, so that is after the first wait."""

    def __init__(self, connection: Connection, is_receiving: threading.Event, **options: Any) -> None:
        super().__init__(connection, **options)
        self._is_receiving = is_receiving
        self._waits = 0

    def on_iteration(self) -> None:
        if self._waits == 1:
            self._is_receiving.set()
        self._waits += 1


class _Events(Events):  # type: ignore[misc]
    """Flower's events, which knows whether it receives them."""

    def __init__(self, capp: Celery) -> None:
        super().__init__(
            capp,
            None,  # Flower sets its loop
            db=options.db,
            persistent=options.persistent,
            enable_events=options.enable_events,
            state_save_interval=options.state_save_interval,
            max_workers_in_memory=options.max_workers,
            max_tasks_in_memory=options.max_tasks,
        )
        #: Set once it receives events, or the broker is unavailable: a restart of Flower would not help then.
        self.has_begun = threading.Event()

    def run(self) -> None:
        while True:
            try:
                with self.capp.connection() as connection:
                    receiver = _Receiver(connection, self.has_begun, handlers={"*": self.on_event}, app=self.capp)
                    receiver.capture(limit=None, timeout=None, wakeup=True)
            except Exception as error:
                log.warning("broker unavailable, no events received", error=str(error))
                self.has_begun.set()
                time.sleep(_RECONNECT_SECONDS)


class ProtectedFlower(Flower):  # type: ignore[misc]
    """Flower, with all handlers but `/healthcheck` behind the password."""

    def __init__(self, settings: FlowerSettings) -> None:
        self._broker_url = settings.redis_url.get_secret_value()
        self._login = f"{USER}:{settings.flower_password.get_secret_value()}".encode()
        # Flower compares logins itself, too, but only ASCII ones. So it gets one of this process's own.
        self._internal_login = f"{USER}:{secrets.token_hex()}"
        apply_env_options()  # FLOWER_MAX_TASKS and others
        options.address = settings.listen_address
        options.port = settings.flower_port
        options.basic_auth = [self._internal_login]
        capp = connect_celery(settings)
        super().__init__(capp=capp, options=options, events=_Events(capp), **tornado_settings)
        self.events.io_loop = self.io_loop

    @property
    def broker_uri_with_password(self) -> str:
        """The URL under which Flower looks up the lengths of queues. It does not know the broker's own transport."""
        return self._broker_url

    @property
    def broker_uri(self) -> str:
        """The same for people, without the password."""
        parts = urlsplit(self._broker_url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def log_request(self, handler: Any) -> None:
        """Log a request, but no health check: that it is not healthy yet is no error."""
        if handler.request.path != "/healthcheck":
            super().log_request(handler)

    def find_handler(self, request: Any, **arguments: Any) -> Any:
        if request.path == "/healthcheck":
            if not self.events.has_begun.is_set():
                return self.get_handler_delegate(request, _Starting)
            return super().find_handler(request, **arguments)
        if not hmac.compare_digest(_login_of(request), self._login):
            return self.get_handler_delegate(request, _PasswordRequired)
        request.headers["Authorization"] = f"Basic {b64encode(self._internal_login.encode()).decode()}"
        return super().find_handler(request, **arguments)


def _login_of(request: Any) -> bytes:
    """The `user:password` of HTTP basic authentication (RFC 7617); empty if there is none."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return b64decode(encoded.strip(), validate=True)
    except ValueError:
        return b""


def main() -> None:
    try:
        settings = load_flower_settings()
    except SettingsError as error:
        sys.exit(f"Flower cannot start.\n{error}")
    configure_logging(settings)
    if settings.log_level != "DEBUG":
        for name in ("flower", "tornado.access", "kombu"):
            logging.getLogger(name).setLevel("ERROR")
    flower = ProtectedFlower(settings)
    atexit.register(flower.stop)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    flower.start_http_server()
    log.info("listening", address=settings.listen_address, port=settings.flower_port)
    with suppress(KeyboardInterrupt):
        flower.start()


if __name__ == "__main__":
    main()
