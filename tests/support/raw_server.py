"""A server that answers requests with exact bytes, in exact pieces, over plain TCP or TLS."""

import contextlib
import socket
import ssl
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class RawReply:
    """The bytes of a response, each piece sent by itself, and what follows."""

    pieces: Sequence[bytes]
    #: The server closes the connection, waits for the next request, resets it, or is silent until the client closes.
    then: Literal["close", "keep", "reset", "silence"] = "close"


def response(
    body: bytes,
    content_type: str = "text/event-stream",
    status: str = "200 OK",
    headers: str = "",
    length: bool = False,
) -> bytes:
    """Return a response that ends with its connection, or has a Content-Length."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n{headers}"
    return (head + (f"Content-Length: {len(body)}\r\n" if length else "Connection: close\r\n") + "\r\n").encode() + body


@dataclass
class Connection:
    """A connection of a client."""

    requests: list[bytes] = field(default_factory=list)
    is_silent: threading.Event = field(default_factory=threading.Event)  #: set once the server only waits
    is_closed: threading.Event = field(default_factory=threading.Event)  #: set once the client has closed it


class RawServer:
    """Answers each request with the next of `replies`.

    Args:
        instead_of_tls: What clients get instead of a handshake, before the connection is closed; nothing: silence.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", instead_of_tls: bytes | None = None
    ) -> None:
        self.replies: deque[RawReply] = deque()
        self.connections: list[Connection] = []
        self._tls = tls
        self._instead_of_tls = instead_of_tls
        self._listener = socket.create_server((host, 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http{'' if tls is None and instead_of_tls is None else 's'}://{host}:{self.port}/v1"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "RawServer":
        return self

    def __exit__(self, *error: Any) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def requests(self) -> list[bytes]:
        """All requests, head and body."""
        return [request for connection in self.connections for request in connection.requests]

    def script(self, *pieces: bytes, then: Literal["close", "keep", "reset", "silence"] = "close") -> None:
        """Append a reply."""
        self.replies.append(RawReply(pieces, then))

    def reset(self) -> None:
        self.replies.clear()
        self.connections.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = Connection()
                self.connections.append(connection)
                threading.Thread(target=self._serve, args=(client, connection), daemon=True).start()

    def _serve(self, client: socket.socket, connection: Connection) -> None:
        with client, contextlib.suppress(OSError):
            if self._instead_of_tls is not None:
                if self._instead_of_tls:
                    client.recv(65536)
                    client.sendall(self._instead_of_tls)
                else:
                    self._wait_for_close(client, connection)
                return
            stream = self._tls.wrap_socket(client, server_side=True) if self._tls else client
            with stream:
                while request := _request(stream):
                    connection.requests.append(request)
                    if not self._reply(stream, connection):
                        return
        connection.is_closed.set()

    def _reply(self, stream: socket.socket, connection: Connection) -> bool:
        """Send the next reply. Returns whether the connection stays open."""
        reply = self.replies.popleft()
        for piece in reply.pieces:
            stream.sendall(piece)
        if reply.then == "silence":
            self._wait_for_close(stream, connection)
        elif reply.then == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return reply.then == "keep"

    @staticmethod
    def _wait_for_close(stream: socket.socket, connection: Connection) -> None:
        connection.is_silent.set()
        with contextlib.suppress(OSError):
            while stream.recv(65536):
                pass
        connection.is_closed.set()


def _request(stream: socket.socket) -> bytes:
    """Return the next request; nothing if the client has closed the connection."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = stream.recv(65536)
        if not data:
            return b""
        received += data
    head, _, body = received.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    length = int(lengths[0]) if lengths else 0
    while len(body) < length:
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body
