"""gunicorn's gevent worker, adapted to WebSockets: how it starts, and how it stops without breaking a connection."""

import contextlib
import gc
import resource
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import gevent
from gunicorn.workers import ggevent

from api.server.listening_socket import DrainingServer

#: File descriptors of a process that are not connections.
SPARE_DESCRIPTORS = 500
#: A kept-alive connection that has waited for this long, in seconds, is not about to send a request.
IDLE_SECONDS = 0.5


class GunicornWorker(ggevent.GeventWorker):  # type: ignore[misc]
    """A gevent worker that closes its WebSockets with 1012 and its idle connections when it stops."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle = IdleConnections(self.cfg.keepalive)
        self._is_running = False

    def init_process(self) -> None:
        # The base class sets its signal handlers only after the fork's other work; a SIGTERM in between would be lost.
        signal.signal(signal.SIGTERM, self.handle_exit)

        from api.server import gevent_psycopg2

        gevent_psycopg2.install()
        raise_descriptor_limit(self.cfg.worker_connections + SPARE_DESCRIPTORS)
        # What the imports make stays; looking for garbage among it takes a sixth of the start. `run` enables it again.
        gc.disable()
        ggevent.StreamServer = DrainingServer  # the base class has no setting for it
        super().init_process()

    def run(self) -> None:
        # The garbage collector stops everything, for 0.2 s with 10,000 sockets. It need not look again through what is
        # loaded by now, nor through all the rest before some million objects more are there.
        gc.collect()
        gc.freeze()
        gc.set_threshold(2_000, 20, 25)
        gc.enable()
        self._is_running = True
        if not self.alive:  # SIGTERM came during the start
            self._close_connections()
        super().run()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._is_running:
            self._close_connections()
        super().handle_exit(sig, frame)

    def timeout_ctx(self) -> contextlib.AbstractContextManager[None]:
        return self._idle.timeout()

    def _close_connections(self) -> None:
        """Begin to close sockets and idle connections: they would hold up the stop, and then break."""
        from api.wsgi import services

        # A signal handler must not block, so greenlets do it.
        gevent.spawn(services.relay.shut_down)
        gevent.spawn(self._idle.close)


class IdleConnections:
    """Kept-alive connections that wait for their next request.

    Args:
        keepalive: How long each may wait, in seconds.
    """

    def __init__(self, keepalive: float) -> None:
        self._keepalive = keepalive
        self._waiting: dict[Any, Any] = {}

    @contextlib.contextmanager
    def timeout(self) -> Iterator[None]:
        """Wait for a request within this context, for `keepalive` seconds at most, as gunicorn's `timeout_ctx` does."""
        greenlet = gevent.getcurrent()
        with gevent.Timeout(self._keepalive, False) as timeout:
            self._waiting[greenlet] = timeout
            try:
                yield
            finally:
                del self._waiting[greenlet]

    def close(self) -> None:
        """Close, for ever, the connections that have waited for IDLE_SECONDS, so that none is cut within a request."""
        while True:
            before = dict(self._waiting)
            gevent.sleep(IDLE_SECONDS)
            for greenlet, timeout in before.items():
                if self._waiting.get(greenlet) is timeout:
                    greenlet.kill(timeout, block=False)


def raise_descriptor_limit(wanted: int) -> None:
    """Raise the soft limit on open files to `wanted`, or as far as the hard limit (`ulimit -Hn`) allows.

    Each connection takes one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
