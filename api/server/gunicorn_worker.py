"""gunicorn's gevent worker, adapted to WebSockets: how it starts, and how it stops without breaking a connection."""

import contextlib
import gc
import os
import signal
from http import HTTPStatus
from types import FrameType
from typing import TYPE_CHECKING, Any

import gevent
from gunicorn.workers import ggevent

from api.server import gunicorn_responses
from api.server.client_socket import ClientSocket, RequestTimeoutError
from api.server.listening_socket import DrainingServer
from shared.descriptor_limit import raise_descriptor_limit

if TYPE_CHECKING:
    from api.server.connections import Connections

#: File descriptors of a process that are not connections.
SPARE_DESCRIPTORS = 500
#: An idle connection that has waited for this long, in seconds, is not about to send a request.
IDLE_SECONDS = 0.5
TOO_MANY_CONNECTIONS = "Your address has too many connections open; close some, or try again later."
REQUEST_TIMEOUT = "The request did not arrive in time."


class GunicornWorker(ggevent.GeventWorker):  # type: ignore[misc]
    """A gevent worker that limits connections in number and time.

    When it stops, it closes its WebSockets with 1012, and its idle connections.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._connections: Connections  # from `run` on
        self._is_running = False

    def init_process(self) -> None:
        # The base class sets its signal handlers only after the fork's other work; a SIGTERM in between would be lost.
        signal.signal(signal.SIGTERM, self.handle_exit)

        from api.server import gevent_psycopg2

        gevent_psycopg2.install()
        descriptors = raise_descriptor_limit(self.cfg.worker_connections + SPARE_DESCRIPTORS)
        # Beyond this the process could open nothing else, not even a connection to PostgreSQL.
        self.worker_connections = max(1, min(self.cfg.worker_connections, descriptors - SPARE_DESCRIPTORS))
        # Collecting garbage during the imports would take a sixth of the start, and free nothing. `run` enables it.
        gc.disable()
        ggevent.StreamServer = DrainingServer  # the base class has no setting for it
        super().init_process()

    def run(self) -> None:
        # Only a worker has patched what these load.
        from api.intake.load_shedding import LOAD_SHEDDER
        from api.realtime import handshake
        from api.server.connections import Connections
        from api.wsgi import app, services

        # The garbage collector stops everything, for 0.2 s with 10,000 sockets. It need not look again through what is
        # loaded by now, nor through all the rest before some million objects more are there.
        gc.collect()
        gc.freeze()
        gc.set_threshold(2_000, 20, 25)
        self._serve = handshake.detach_sockets(super().handle)
        self._connections = Connections(
            capacity=self.worker_connections,
            per_address=services.settings.connection_limit_per_address,
            trusted_proxies=services.settings.trusted_proxies,
            request_timeout=services.settings.request_timeout_seconds,
            keepalive=self.cfg.keepalive,
            answer=app.extensions[LOAD_SHEDDER].answer,
        )
        gc.enable()
        self._is_running = True
        if not self.alive:  # SIGTERM came during the start
            self._close_connections()
        super().run()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._is_running:
            self._close_connections()
        super().handle_exit(sig, frame)

    def handle(self, listener: Any, client: ClientSocket, addr: Any) -> None:
        """Serve a connection until it ends, with the WebSocket that it may become."""
        try:
            if self._connections.open(client, addr[0]):
                self._serve(listener, client, addr)
            else:
                refuse(client)
                self._connections.linger(client)
                client.close()
        finally:
            self._connections.close(client)

    def handle_request(self, listener_name: Any, req: Any, sock: ClientSocket, addr: Any) -> None:
        """Handle a request whose head has arrived. Raises StopIteration if the connection cannot be kept after it."""
        if not self._connections.begin_request(sock, req):
            refuse(sock)
            self._connections.linger(sock)
            raise StopIteration
        try:
            super().handle_request(listener_name, req, sock, addr)
        except StopIteration:
            if not (sock.is_websocket or req.body.is_complete):
                self._connections.linger(sock)
            raise
        if not req.body.discard():
            raise StopIteration
        # What gunicorn has received of the next request: its own first read is not the beginning then.
        is_partial = req.unreader.buf.seek(0, os.SEEK_END) > 0
        self._connections.await_next_request(sock, is_partial=is_partial)

    def handle_error(self, req: Any, client: ClientSocket, addr: Any, exc: BaseException) -> None:
        if isinstance(exc, RequestTimeoutError):
            with contextlib.suppress(OSError):
                gunicorn_responses.write_problem(client, HTTPStatus.REQUEST_TIMEOUT, "", REQUEST_TIMEOUT)
        else:
            super().handle_error(req, client, addr, exc)
        self._connections.linger(client)

    def timeout_ctx(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()  # `ClientSocket` has the timeouts

    def _close_connections(self) -> None:
        """Begin to close sockets and idle connections: they would hold up the stop, and then break."""
        from api.wsgi import services

        # A signal handler must not block, so greenlets do it.
        gevent.spawn(services.relay.shut_down)
        gevent.spawn(self._close_idle)

    def _close_idle(self) -> None:
        """Close, for ever, the connections that have waited for IDLE_SECONDS, so that none is cut within a request."""
        while True:
            gevent.sleep(IDLE_SECONDS)
            self._connections.close_idle(IDLE_SECONDS)


def refuse(client: ClientSocket) -> None:
    """Tell a client that its address has too many connections."""
    with contextlib.suppress(OSError):
        gunicorn_responses.write_problem(client, HTTPStatus.TOO_MANY_REQUESTS, "", TOO_MANY_CONNECTIONS, retry_after=1)
