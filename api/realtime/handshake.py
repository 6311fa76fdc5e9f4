"""WebSocket routes: flask-sock's `Sock`, with our `WebSocket` beneath its decorator.

flask-sock is how sockets are declared: `sock.route(path, bp)(handler)`. Its own view serves a socket by
simple-websocket, within the request. Ours replaces it with:

- a handshake with subprotocols and without extensions;
- `WebSocket`: whole sends under one lock, no input buffer, a time limit on each send. simple-websocket does not check
  how much was sent, buffers input without a limit, and lets a client that does not read block the sender;
- errors that close the socket with 1011. Flask would write an HTTP response into it;
- sockets that are detached from their request: under our gunicorn the socket is read in the request's greenlet after
  the request has ended and released its memory (`detach_sockets`). simple-websocket adds a second thread.

Memory of an idle socket, gunicorn with gevent: 37 KB with flask-sock alone, 128 KB if the client offers compression, as
browsers do (an echo route, 2,000 sockets); 19 KB here, with 10,000 sockets in their rooms (`infra/architecture.md`,
"Sockets"). Three clients that did not read blocked three of flask-sock's threads for 80 s.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from http import HTTPStatus
from typing import Any

import flask_sock
import structlog
from flask import Blueprint, Response, request
from simple_websocket import ConnectionClosed
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest, HTTPException
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token, split_comma_header

from api.realtime.websocket import WebSocket
from api.server.client_socket import ClientSocket
from shared.db.engine import cause

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def closing_on_error(socket: WebSocket) -> Iterator[None]:
    """Close the socket if the block fails."""
    try:
        yield
    except ConnectionClosed:
        pass
    except SQLAlchemyError as error:
        log.warning("postgres unavailable, socket closed", error=cause(error))
        socket.close(CloseReason.TRY_AGAIN_LATER)
    except Exception:
        log.exception("socket handler failed")
        socket.close(CloseReason.INTERNAL_ERROR)


#: The sockets that the current connection's requests have opened; None if the server does not detach sockets.
_detached: ContextVar[list[WebSocket] | None] = ContextVar("_detached", default=None)


def detach_sockets(handle: Callable[..., None]) -> Callable[..., None]:
    """Wrap a server's connection handler so that a socket is read after its request has ended, in the same thread."""

    @wraps(handle, assigned=())
    def serve(*arguments: Any) -> None:
        opened: list[WebSocket] = []
        _detached.set(opened)
        handle(*arguments)
        for socket in opened:
            socket.run()

    return serve


class Sock(flask_sock.Sock):  # type: ignore[misc]
    """flask-sock's `Sock`, over `WebSocket`."""

    def __init__(self, subprotocols: list[str]) -> None:
        super().__init__()
        self._subprotocols = subprotocols

    def route(self, path: str, bp: Blueprint) -> Callable[[Callable[..., None]], None]:
        """Decorate a handler, which gets the open socket and the path's variables.

        When the handler returns, the socket is closed unless it has a listener. A plain request is answered with 426.
        """

        def decorator(handler: Callable[..., None]) -> None:
            @wraps(handler)
            def view(**variables: str) -> Response:
                self._serve(handler, variables)
                return _SocketResponse("gunicorn.socket" in request.environ)

            bp.add_url_rule(path, view_func=view, websocket=True)
            bp.add_url_rule(path, endpoint=f"{handler.__name__}_plain", view_func=_upgrade_required)

        return decorator

    def _serve(self, handler: Callable[..., None], variables: dict[str, str]) -> None:
        answer = _handshake(request.headers, self._subprotocols)
        connection = request.environ.get("gunicorn.socket") or request.environ["werkzeug.socket"]
        if isinstance(connection, ClientSocket):
            connection.become_websocket()
        socket = WebSocket(connection)
        with closing_on_error(socket):
            socket.accept(answer)
            handler(socket, **variables)
        if not socket.has_listener:
            socket.close()
        detached = _detached.get()
        if detached is None:
            socket.run()
        else:
            detached.append(socket)


def _handshake(headers: Headers, subprotocols: list[str]) -> bytes:
    """Answer a client's handshake (RFC 6455, section 4.2) with one of these subprotocols, and without extensions.

    Raises:
        BadRequest: the handshake is malformed.
    """
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        offered = split_comma_header(headers.get("Sec-WebSocket-Protocol", "").encode("latin-1"))
    except UnicodeError as error:
        raise BadRequest("The WebSocket handshake is not valid.") from error
    if headers.get("Sec-WebSocket-Version") != "13" or not key.isascii() or not key:
        raise BadRequest("The WebSocket handshake is not valid.")
    chosen = next((f"Sec-WebSocket-Protocol: {name}\r\n" for name in offered if name in subprotocols), "")
    accept = generate_accept_token(key.encode()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
    ).encode()


def _upgrade_required(**_: str) -> Response:
    raise UpgradeRequired


class UpgradeRequired(HTTPException):
    """426: this path is a WebSocket."""

    code = HTTPStatus.UPGRADE_REQUIRED
    description = "This is a WebSocket: connect with ws:// or wss://."

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args, **kwargs), ("Upgrade", "websocket")]


class _SocketResponse(Response):
    """Ends a socket's request: the handshake was its response, and the server must not send another."""

    def __init__(self, by_gunicorn: bool) -> None:
        super().__init__(status=HTTPStatus.SWITCHING_PROTOCOLS)  # for the log
        self._by_gunicorn = by_gunicorn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._by_gunicorn:
            raise StopIteration
        return super().__call__(*args, **kwargs)
