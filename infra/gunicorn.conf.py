"""gunicorn's configuration: gevent workers, which hold REST and thousands of sockets on one port."""

import contextlib
import ctypes
import gc
import json
import mmap
import os
import re
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from types import FrameType
from typing import Any

from gunicorn import glogging, util
from gunicorn.http import wsgi

from shared.telemetry import metrics_folder

bind = f"{os.environ.get('HOST', '127.0.0.1')}:{os.environ.get('PORT', '8000')}"
workers = int(os.environ.get("API_PROCESSES", "1"))
worker_class = "gevent"
worker_connections = 20_000
_OTHER_DESCRIPTORS = 500
# Requests that wait (`Prefer: wait=60`) are woken up when the process goes down; this is for slow clients, and for a
# process that is told to stop while it starts on a busy machine.
graceful_timeout = 8
# Longer than a load balancer keeps its connections (load_balancer.tf), or it sends requests into those being closed.
keepalive = 75
# As long as gunicorn admits: the text that `GET /prompts/similar/` looks for is in there.
limit_request_line = 8190
# It would lie in the home folder.
control_socket_disable = True
# Each worker touches a file there to show that it lives; on a disk that might take long.
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: PTH112, S108  # nosec B108
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


class _OnePiece(wsgi.Response):  # type: ignore[misc]
    """gunicorn's response, whose head goes with the beginning of the body: one system call, and one packet."""

    _head = b""

    def send_headers(self) -> None:
        if not self.headers_sent:
            self.sock, sock = self, self.sock
            super().send_headers()
            self.sock = sock

    def sendall(self, head: bytes) -> None:
        """In place of the socket, while the head is made."""
        self._head = head

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            self._send_head()
            super()._emit_body(data)
        else:
            self._send_head(data)

    def can_sendfile(self) -> bool:
        return False

    def close(self) -> None:
        self.send_headers()
        self._send_head()
        super().close()

    def _send_head(self, data: bytes = b"") -> None:
        piece, self._head = self._head + data, b""
        if piece:
            self.sock.sendall(piece)


wsgi.Response = _OnePiece


class _Logger(glogging.Logger):  # type: ignore[misc]
    """gunicorn's log, whose lines look like ours."""

    def setup(self, cfg: Any) -> None:
        from shared.settings import SettingsError, load_settings
        from shared.telemetry import logs

        super().setup(cfg)
        with contextlib.suppress(SettingsError):  # which the application will tell
            formatter = logs.formatter(load_settings())
            for handler in self.error_log.handlers:
                handler.setFormatter(formatter)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Without what somebody has sent that is no request: it may be a token, or a part of a prompt."""
        super().warning(re.sub(r"(?s)^(Invalid request from ip=\S+): .*", r"\1", msg), *args, **kwargs)


logger_class = _Logger
metrics_folder.make()


def child_exit(_: Any, worker: Any) -> None:
    """Forgets how many sockets and the like a process had that has ended."""
    metrics_folder.forget(worker.pid)


def when_ready(server: Any) -> None:
    """Has the workers know, in memory that they share, whether the listening socket itself goes away."""
    server.closes_socket = mmap.mmap(-1, 1)
    stop = server.stop

    def stop_and_say_so(graceful: bool = True) -> None:
        # A master that hands its socket on (SIGUSR2) does not close it, nor one that systemd gave it to.
        server.closes_socket[0] = server.reexec_pid == server.master_pid == 0 and not server.systemd
        stop(graceful)

    server.stop = stop_and_say_so


def post_fork(server: Any, worker: Any) -> None:
    """Before anything connects."""
    # gunicorn does so only later, and a SIGTERM in between would go unheard.
    signal.signal(signal.SIGTERM, worker.handle_exit)

    from gunicorn.workers import ggevent

    from api.server import gevent_psycopg2

    gevent_psycopg2.install()
    _admit_descriptors()
    ggevent.StreamServer = _draining(ggevent.StreamServer, server.closes_socket)


def _admit_descriptors() -> None:
    """Raises the limit on open files, of which each connection is one, as far as we may; `ulimit -Hn` tells how far."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = worker_connections + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _draining(stream_server: type[Any], closes_socket: mmap.mmap) -> type[Any]:
    """gevent's server, in which sockets go on after their request.

    Before it closes it takes in those who have connected; they would see a reset.
    """
    import gevent

    class DrainingServer(stream_server):  # type: ignore[misc]
        def set_handle(self, handle: Callable[..., None]) -> None:
            from api.realtime import handshake

            super().set_handle(handshake.outlasting(handle))

        def close(self) -> None:
            if not self.closed:
                with contextlib.suppress(OSError):  # where the kernel has no filters, or no descriptor is left
                    if closes_socket[0]:
                        _let_nobody_connect(self.socket)
                        gevent.sleep(_HANDSHAKE_SECONDS)
                    self.stop_accepting()
                    for accepted in iter(self.do_read, None):
                        self.do_handle(*accepted)
                gevent.sleep(0)  # they begin by asking the listening socket for its name
            super().close()

    return DrainingServer


#: How long handshakes that have begun may take.
_HANDSHAKE_SECONDS = 0.2
# A classic BPF program for a TCP socket: drop what has the flag SYN and not ACK, let through the rest.
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFF),  # pass
)


def _let_nobody_connect(listening: socket.socket) -> None:
    """Drops the first packet of new connections, on Linux (socket(7), SO_ATTACH_FILTER).

    The client's kernel tries again in a second, and is refused or finds our successor.
    """
    if sys.platform == "linux":
        so_attach_filter = 26
        program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _DROP_SYN))
        described = struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
        listening.setsockopt(socket.SOL_SOCKET, so_attach_filter, described)


class _Idle:
    """The connections that are kept alive and wait for a next request. They would hold up a stop."""

    def __init__(self) -> None:
        self._waiting: dict[Any, Any] = {}

    @contextlib.contextmanager
    def timeout(self) -> Iterator[None]:
        """How gunicorn waits for a request, in a greenlet each."""
        import gevent

        greenlet = gevent.getcurrent()
        with gevent.Timeout(keepalive, False) as timeout:
            self._waiting[greenlet] = timeout
            try:
                yield
            finally:
                del self._waiting[greenlet]

    def close(self) -> None:
        """Ends the waiting of those that have waited for a moment, so that none is cut off within a request."""
        import gevent

        while True:
            before = dict(self._waiting)
            gevent.sleep(0.5)
            for greenlet, timeout in before.items():
                if self._waiting.get(greenlet) is timeout:
                    greenlet.kill(timeout, block=False)


def post_worker_init(worker: Any) -> None:
    """On SIGTERM first says goodbye to the sockets (1012); otherwise they would hold up the stop and then break."""
    import gevent

    from api.wsgi import services

    # The garbage collector stops everything, with 10,000 sockets for 0.2 s. It need not look again through what is
    # loaded by now, nor through all the rest before some million objects more are there.
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 20, 25)

    idle = _Idle()
    worker.timeout_ctx = idle.timeout
    previous = signal.getsignal(signal.SIGTERM)

    def say_goodbye() -> None:
        # A signal handler must not block: what closes runs beside.
        gevent.spawn(services.relay.shut_down)
        gevent.spawn(idle.close)

    def stop(signum: int, frame: FrameType | None) -> None:
        say_goodbye()
        if callable(previous):
            previous(signum, frame)

    signal.signal(signal.SIGTERM, stop)
    if not worker.alive:  # told to stop while it started
        say_goodbye()
