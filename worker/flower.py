"""Flower: `python -m worker.flower`. It needs FLOWER_PASSWORD and a broker, and no other secrets.

Flower can show and stop all tasks, so everything but its health check is behind the password; Flower itself would also
serve its metrics and files without it. The password is read from the environment, because all users of a machine can
see command lines.
"""

import atexit
import hmac
import logging
import secrets
import signal
import sys
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Any

import structlog
from flower.app import Flower
from flower.command import apply_env_options
from flower.options import default_options as options
from flower.urls import settings as tornado_settings
from flower.views import BaseHandler

from shared.messaging.queue import connect_celery
from shared.settings import FlowerSettings, SettingsError, load_flower_settings
from shared.telemetry.logs import configure_logging

log = structlog.get_logger("worker.flower")  # __name__ is __main__

#: Who logs in with FLOWER_PASSWORD.
USER = "admin"


class _PasswordRequired(BaseHandler):  # type: ignore[misc]
    """Refuses every request."""

    def prepare(self) -> None:
        self.set_status(401)
        self.set_header("WWW-Authenticate", 'Basic realm="Flower", charset="UTF-8"')
        self.finish("Flower needs a password.\n")


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
        super().__init__(capp=connect_celery(settings), options=options, **tornado_settings)

    @property
    def broker_uri_with_password(self) -> str:
        """The URL under which Flower looks up the lengths of queues. It does not know the broker's own transport."""
        return self._broker_url

    def find_handler(self, request: Any, **arguments: Any) -> Any:
        if request.path == "/healthcheck":
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
