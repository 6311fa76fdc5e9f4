"""flask-sock, hardened: handshakes, what a failing handler does to its socket, and sockets that outlast their request.

Under our gunicorn the thread of a socket is that of the request which opened it, once that is over and has let go of
all it held. Elsewhere the socket lives within the request.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import wraps
from http import HTTPStatus
from typing import Any

import structlog
from flask import Blueprint, Response, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.datastructures import Headers
from werkzeug.exceptions import BadRequest, HTTPException
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token, split_comma_header

from api.realtime.websocket import WebSocket

log = structlog.get_logger(__name__)


@contextlib.contextmanager
def ending(socket: WebSocket) -> Iterator[None]:
    """What happens to a socket if serving it fails."""
    try:
        yield
    except ConnectionClosed:
        pass
    except SQLAlchemyError as error:
        log.warning("socket closed, database away", error=type(error).__name__)
        socket.close(CloseReason.TRY_AGAIN_LATER)
    except Exception:
        log.exception("socket handler failed")
        socket.close(CloseReason.INTERNAL_ERROR)


_outlast: ContextVar[list[WebSocket] | None] = ContextVar("_outlast", default=None)


def outlasting(handle: Callable[..., None]) -> Callable[..., None]:
    """Wraps a server's function that serves a connection: a socket goes on in it after its request."""

    @wraps(handle, assigned=())
    def serve(*arguments: Any) -> None:
        opened: list[WebSocket] = []
        _outlast.set(opened)
        handle(*arguments)
        for socket in opened:
            socket.run()

    return serve


class HardenedSock(Sock):  # type: ignore[misc]
    """flask-sock with `WebSocket`; a handler's exception ends the socket with 1011, not with HTTP."""

    def __init__(self, subprotocols: list[str]) -> None:
        super().__init__()
        self._subprotocols = subprotocols

    def route(self, path: str, bp: Blueprint) -> Callable[[Callable[..., None]], None]:
        """Decorates a handler, which gets the open socket and the path's variables; it closes it, or has somebody
        listen to it. Plain requests get a 426."""

        def decorator(handler: Callable[..., None]) -> None:
            @wraps(handler)
            def view(**variables: str) -> Response:
                answer = _handshake(request.headers, self._subprotocols)
                sock = request.environ.get("gunicorn.socket") or request.environ["werkzeug.socket"]
                socket = WebSocket(sock)
                with ending(socket):
                    socket.accept(answer)
                    handler(socket, **variables)
                if not socket.has_listener:
                    socket.close()
                outlast = _outlast.get()
                if outlast is None:
                    socket.run()
                else:
                    outlast.append(socket)
                return _Served("gunicorn.socket" in request.environ)

            bp.add_url_rule(path, view_func=view, websocket=True)
            bp.add_url_rule(path, endpoint=f"{handler.__name__}_plain", view_func=_upgrade_required)

        return decorator


def _handshake(headers: Headers, known: list[str]) -> bytes:
    """The answer to a client that wants a socket (RFC 6455, section 4.2), with one of our subprotocols, no extensions.

    Raises:
        BadRequest: it is no valid wish.
    """
    key = headers.get("Sec-WebSocket-Key", "")
    try:
        offered = split_comma_header(headers.get("Sec-WebSocket-Protocol", "").encode("latin-1"))
    except UnicodeError as error:
        raise BadRequest("The WebSocket handshake is not valid.") from error
    if headers.get("Sec-WebSocket-Version") != "13" or not key.isascii() or not key:
        raise BadRequest("The WebSocket handshake is not valid.")
    chosen = next((f"Sec-WebSocket-Protocol: {name}\r\n" for name in offered if name in known), "")
    accept = generate_accept_token(key.encode()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
    ).encode()


def _upgrade_required(**_: str) -> Response:
    raise UpgradeRequired


class UpgradeRequired(HTTPException):
    """426: this path speaks WebSocket only."""

    code = HTTPStatus.UPGRADE_REQUIRED
    description = "This is a WebSocket: connect with ws:// or wss://."

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        return [*super().get_headers(*args, **kwargs), ("Upgrade", "websocket")]


class _Served(Response):
    """The end of a socket's request: there is nothing left to send, and the server must not try."""

    def __init__(self, by_gunicorn: bool) -> None:
        super().__init__(status=HTTPStatus.SWITCHING_PROTOCOLS)  # what the log shows
        self._by_gunicorn = by_gunicorn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._by_gunicorn:
            raise StopIteration
        return super().__call__(*args, **kwargs)
