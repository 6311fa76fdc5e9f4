"""A proxy that changes or refuses requests, as misconfigured ones do."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator

from tests.support.servers import MAX_WAIT_SECONDS

_REFUSAL = "HTTP/1.1 %d Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

#: Returns the head of a request as the server gets it, or None to refuse the request with `refusal`.
Rewrite = Callable[[bytes], bytes | None]


def is_upgrade(head: bytes) -> bool:
    return b"upgrade: websocket" in head.lower()


def with_header(head: bytes, name: bytes, value: bytes | None) -> bytes:
    """The head with another value of a header, or without it."""
    line = b"" if value is None else b"\r\n%s: %s" % (name, value)
    return re.sub(rb"(?i)\r\n%s:[^\r\n]*" % name, line, head)


class TcpProxy:
    """Passes connections on. `rewrite` gets the head of the first request of each connection."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.rewrite: Rewrite = lambda head: head
        self.refusal = 403
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            received = b""
            while b"\r\n\r\n" not in received:
                if not (data := client.recv(65_536)):
                    return
                received += data
            head, separator, rest = received.partition(b"\r\n\r\n")
            rewritten = self.rewrite(head)
            if rewritten is None:
                client.sendall((_REFUSAL % self.refusal).encode())
                return
            with socket.create_connection(self._upstream, timeout=MAX_WAIT_SECONDS) as server:
                server.sendall(rewritten + separator + rest)
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join(MAX_WAIT_SECONDS)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def running(url: str) -> Iterator[TcpProxy]:
    """A proxy in front of the server at this URL."""
    host, _, port = url.removeprefix("http://").partition(":")
    proxy = TcpProxy((host, int(port)))
    try:
        yield proxy
    finally:
        proxy.close()
