"""How gunicorn itself answers: its own errors as problem details, and each response's head together with its body."""

import json
import socket
from http import HTTPStatus

from gunicorn import util
from gunicorn.http import wsgi


def install() -> None:
    """Has gunicorn, in this process and those that it forks, answer this way. gunicorn has no setting for either."""
    util.write_error = write_problem
    wsgi.Response = SinglePacketResponse


def write_problem(
    client: socket.socket, status: int, reason: str, message: str, *, retry_after: int | None = None
) -> None:
    """Write a problem+json response to a request that is refused before the application sees it.

    Such a request is not HTTP, has a line or headers that are too long, or came too late. The parameters are those of
    `gunicorn.util.write_error`, and the seconds for a Retry-After header.
    """
    title = HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": title, "status": status, "detail": message or title}
    body = json.dumps(problem).encode()
    head = f"HTTP/1.1 {status} {title}\r\nConnection: close\r\nContent-Type: application/problem+json\r\n"
    if retry_after is not None:
        head += f"Retry-After: {retry_after}\r\n"
    util.write_nonblock(client, head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)


class SinglePacketResponse(wsgi.Response):  # type: ignore[misc]
    """gunicorn's response, which sends the head with the beginning of the body: one system call and one packet."""

    _head = b""

    def should_close(self) -> bool:
        # The next request begins after this one's body, and a long body is not read to find it.
        return super().should_close() or not self.req.body.may_be_discarded

    def send_headers(self) -> None:
        if not self.headers_sent:
            self.sock, sock = self, self.sock
            super().send_headers()
            self.sock = sock

    def sendall(self, head: bytes) -> None:
        """Stand in for the socket while gunicorn writes the head, and keep it."""
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
        packet, self._head = self._head + data, b""
        if packet:
            self.sock.sendall(packet)
