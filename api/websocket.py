"""flask-sock's server, hardened: simple-websocket speaks the protocol, this keeps it from being misused.

- One lock around making a frame and sending it, and whole sends: frames of two threads cannot mix.
- No input buffer: each message is answered by the thread that read it, so a flood waits in the client's own kernel.
- No compression, so no bombs, and no 300 KB of zlib state a socket.
- A send that does not get through, or a ping that is not answered, ends the socket.
- A close is sent, then the input is drained for a moment: closing with unread input would reset the connection, and
  the client would never see the close code.
"""

import collections
import contextlib
import socket as network
import threading
import time
from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any

import structlog
from flask import Blueprint, Response, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed, Server
from simple_websocket.errors import SimpleWebsocketError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import BadRequest, HTTPException
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

log = structlog.get_logger(__name__)

PING_SECONDS = 25.0  # also how long a send may take
MAX_MESSAGE_BYTES = 64 * 1024
_DRAIN_SECONDS = 2.0

OnMessage = Callable[[str | bytes], None]


class WebSocket(Server):  # type: ignore[misc]
    """One socket. The thread that made it sends; a second one reads, once `listen` was called."""

    def __init__(self, environ: dict[str, Any], *, subprotocols: list[str]) -> None:
        self._sending = threading.RLock()
        self._listening = threading.Event()
        self._finished = threading.Event()
        self._on_message: OnMessage = lambda message: None
        self._on_gone: Callable[[], None] = lambda: None
        self._parts: list[Any] = []
        self._size = 0
        self.pong_received = True
        super().__init__(environ, subprotocols=subprotocols, receive_bytes=16 * 1024)

    def listen(self, on_message: OnMessage, on_gone: Callable[[], None]) -> None:
        """From here on calls `on_message` for each message, and `on_gone` once when the client has left."""
        self._on_message, self._on_gone = on_message, on_gone
        self._listening.set()

    def send(self, data: str) -> None:
        """Sends a text message.

        Raises:
            ConnectionClosed: the socket is closed, or the client does not read.
        """
        self._send_event(TextMessage(data=data))

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Closes with a code, and waits a moment for the client to see it. Closing again does nothing."""
        with contextlib.suppress(ConnectionClosed):
            self._send_event(CloseConnection(reason or CloseReason.NORMAL_CLOSURE, message))
        self.connected = False
        self._listening.set()
        self._finished.wait(_DRAIN_SECONDS)

    def _send_event(self, event: Event) -> None:
        with self._sending:
            if not self.connected:
                raise ConnectionClosed(self.close_reason, self.close_message)
            try:
                self.sock.sendall(self.ws.send(event))
            except (OSError, LocalProtocolError) as error:
                self.connected = False
                self._hang_up()
                raise ConnectionClosed(CloseReason.ABNORMAL_CLOSURE) from error

    def _hang_up(self) -> None:
        """Wakes up the reading thread, too."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(network.SHUT_RDWR)

    def _thread(self) -> None:
        try:
            self.sock.settimeout(PING_SECONDS)
            self._listening.wait()
            while self.connected and self._read():
                pass
            self._drain()
        except (OSError, RemoteProtocolError, LocalProtocolError, SimpleWebsocketError):
            pass
        except Exception:
            log.exception("socket failed")
        finally:
            self.connected = False
            self._finished.set()
            self._on_gone()

    def _read(self) -> bool:
        """Handles what comes next. Returns whether to go on."""
        try:
            data = self.sock.recv(self.receive_bytes)
        except TimeoutError:
            if not self.pong_received:
                return False
            self.pong_received = False
            self._send_event(Ping())
            return True
        if not data:
            return False
        self.pong_received = True
        self.ws.receive_data(data)
        return all(self._handle(event) for event in self.ws.events())

    def _drain(self) -> None:
        """Once we have sent a close, reads on until the client's, for a moment."""
        self.sock.settimeout(_DRAIN_SECONDS)
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self.ws.state is not ConnectionState.CLOSED and time.monotonic() < deadline:
            data = self.sock.recv(self.receive_bytes)
            if not data:
                return
            with contextlib.suppress(RemoteProtocolError, LocalProtocolError):
                self.ws.receive_data(data)
                collections.deque(self.ws.events(), maxlen=0)

    def _handle(self, event: Event) -> bool:
        if isinstance(event, CloseConnection):
            self.close_reason, self.close_message = event.code, event.reason
            self._send_event(event.response())
            self.connected = False
            return False
        if isinstance(event, Ping):
            self._send_event(event.response())
        elif isinstance(event, Message):
            return self._gather(event)
        elif not isinstance(event, Pong):
            return False
        return True

    def _gather(self, event: Message[Any]) -> bool:
        """Puts the parts of a message together; hands it on when it is whole."""
        self._size += len(event.data.encode() if isinstance(event.data, str) else event.data)
        if self._size > MAX_MESSAGE_BYTES:
            self._send_event(CloseConnection(CloseReason.MESSAGE_TOO_BIG, "Messages are at most 64 KiB."))
            self.connected = False
            return False
        self._parts.append(event.data)
        if event.message_finished:
            whole = type(event.data)().join(self._parts)
            self._parts, self._size = [], 0
            self._on_message(whole)
        return True

    def _handle_events(self) -> bool:
        """What simple-websocket's handshake calls: accepts, with the subprotocol and no extensions."""
        for event in self.ws.events():
            if isinstance(event, Request):
                self.subprotocol = self.choose_subprotocol(event)
                self.sock.sendall(self.ws.send(AcceptConnection(subprotocol=self.subprotocol)))
                return True
        return False


class HardenedSock(Sock):  # type: ignore[misc]
    """flask-sock with `WebSocket` as its server; a handler's exception ends the socket with 1011, not with HTTP."""

    def __init__(self, subprotocols: list[str]) -> None:
        super().__init__()
        self._subprotocols = subprotocols

    def route(self, path: str, bp: Blueprint) -> Callable[[Callable[..., None]], None]:
        """Decorates a handler, which gets the open socket and the path's variables. Plain requests get a 426."""

        def decorator(handler: Callable[..., None]) -> None:
            @wraps(handler)
            def view(**variables: str) -> Response:
                try:
                    socket = WebSocket(request.environ, subprotocols=self._subprotocols)
                except (RemoteProtocolError, SimpleWebsocketError, UnicodeError) as error:
                    raise BadRequest("The WebSocket handshake is not valid.") from error
                _serve(handler, socket, variables)
                return _Served(socket)

            bp.add_url_rule(path, view_func=view, websocket=True)
            bp.add_url_rule(path, endpoint=f"{handler.__name__}_plain", view_func=_upgrade_required)

        return decorator


def _serve(handler: Callable[..., None], socket: WebSocket, variables: dict[str, str]) -> None:
    try:
        handler(socket, **variables)
    except ConnectionClosed:
        pass
    except SQLAlchemyError as error:
        log.warning("socket closed, database away", error=type(error).__name__)
        socket.close(CloseReason.TRY_AGAIN_LATER)
    except Exception:
        log.exception("socket handler failed")
        socket.close(CloseReason.INTERNAL_ERROR)
    socket.close()


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

    def __init__(self, socket: WebSocket) -> None:
        super().__init__(status=HTTPStatus.SWITCHING_PROTOCOLS)  # what the log shows
        self._mode = socket.mode

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._mode == "gunicorn":
            raise StopIteration
        return super().__call__(*args, **kwargs)
