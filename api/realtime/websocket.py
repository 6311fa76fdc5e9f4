"""The server's end of a WebSocket: wsproto implements the protocol, this bounds what a client can make it do.

- One thread (greenlet, under gevent) per socket, which reads. The sender of a message sends it itself; a thread is
  started only for a send that must wait.
- One lock around sending, and complete sends: the frames of two threads cannot mix.
- No input buffer: the thread that reads a message answers it, so a flood waits in the client's own kernel.
- No compression: no decompression bombs, no 300 KB of zlib state per socket, and one frame for all sockets of a room.
- A limit on what a client sends (`FrameRateLimit`), and a pause for others after each time slice (`TimeSlice`).
- A send that does not get through, or a ping that is not answered, ends the socket.
- After a close frame the input is drained for a moment: closing with unread input would reset the connection, and the
  client would never see the close code.
"""

import _thread
import contextlib
import os
import socket as network
import ssl
import threading
import time
from typing import Any, Protocol

import structlog
from simple_websocket import ConnectionClosed
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Event, Message, Ping, Pong
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from api.realtime.frame_rate import FRAMES_PER_SECOND, FrameRateLimit
from api.realtime.frames import message_size, text_frame
from api.server.time_slice import TimeSlice

log = structlog.get_logger(__name__)

#: The interval of pings, and how long a send may take.
PING_SECONDS = 25.0
MAX_MESSAGE_BYTES = 64 * 1024
#: Fragments may be empty, so their size alone does not bound the memory that they take.
MAX_FRAGMENTS = 400
MESSAGE_TOO_BIG = f"Messages have at most 64 KiB and {MAX_FRAGMENTS} fragments."
TOO_MANY_MESSAGES = f"Send at most {FRAMES_PER_SECOND} messages a second."
_RECEIVE_BYTES = 16 * 1024
_DRAIN_SECONDS = 2.0
_DRAIN_INTERVAL_SECONDS = 0.05


class Listener(Protocol):
    """Receives a socket's messages and its end, from the thread that reads."""

    until: float  #: when the socket expires, in seconds since the epoch

    def on_message(self, data: str | bytes) -> None: ...

    def on_expired(self) -> None: ...

    def on_closed(self) -> None:
        """The socket is closed. Called once."""


class WebSocket:
    """One socket of a server."""

    __slots__ = (
        "_fragments",
        "_frame_rate",
        "_listener",
        "_pong_received",
        "_sending",
        "_size",
        "_sock",
        "_socket_file",
        "_time_slice",
        "_ws",
        "connected",
    )

    def __init__(self, sock: network.socket, frame_rate: FrameRateLimit | None = None) -> None:
        self._sock = sock
        # A file of the socket keeps it open when the server closes it at the end of the request.
        self._socket_file = sock.makefile("rb", buffering=0)
        self._ws = Connection(ConnectionType.SERVER)
        self._sending = threading.Lock()
        self._listener: Listener | None = None
        self._fragments: list[Any] = []
        self._size = 0
        self._pong_received = True
        self._frame_rate = frame_rate or FrameRateLimit()
        self._time_slice = TimeSlice()
        self.connected = True
        sock.settimeout(PING_SECONDS)

    def accept(self, answer: bytes) -> None:
        """Send the answer to the client's handshake."""
        with self._sending:
            self._send(answer)

    def send(self, text: str) -> bool:
        """Send a text message; it may take up to PING_SECONDS. Returns True.

        Raises:
            ConnectionClosed: the socket is closed, or the client does not read.
        """
        with self._sending:
            self._send(text_frame(text))
        return True

    def post(self, text: str) -> bool:
        """Send a text message without waiting. Returns False if it would block, as during another send.

        Raises:
            ConnectionClosed: the socket is closed.
        """
        frame = text_frame(text)
        if not self._sending.acquire(blocking=False):
            return False
        try:
            sent = self._write(frame)
        except ConnectionClosed:
            self._sending.release()
            raise
        if 0 < sent < len(frame):
            _thread.start_new_thread(self._send_rest, (frame[sent:],))  # which releases the lock
        else:
            self._sending.release()
        return sent > 0

    def close(self, code: int = CloseReason.NORMAL_CLOSURE, message: str | None = None) -> None:
        """Send a close frame, and make the thread that reads end the socket. Closing again does nothing."""
        self._close(CloseConnection(code, message))
        with contextlib.suppress(OSError):
            self._sock.shutdown(network.SHUT_RD)

    def listen(self, listener: Listener) -> None:
        """Set the listener that `run` calls."""
        self._listener = listener

    @property
    def has_listener(self) -> bool:
        return self._listener is not None

    def run(self) -> None:
        """Read until the socket is closed."""
        try:
            while self._listener is not None and self.connected and self._read(self._listener):
                pass
        except (OSError, RemoteProtocolError, LocalProtocolError, ConnectionClosed):
            pass
        except Exception:
            log.exception("socket failed")
        finally:
            self._end()

    def _send(self, frame: bytes) -> None:
        """Send a frame. The caller holds the lock."""
        if not self.connected:
            raise ConnectionClosed
        try:
            self._sock.sendall(frame)
        except OSError as error:
            self._hang_up()
            raise ConnectionClosed from error

    def _send_event(self, event: Event) -> None:
        with self._sending:
            self._send(bytes(self._ws.send(event)))

    def _send_rest(self, rest: bytes) -> None:
        """Send the rest of a frame, in a thread that releases the lock."""
        try:
            with contextlib.suppress(ConnectionClosed):
                self._send(rest)
        finally:
            self._sending.release()

    def _write(self, frame: bytes) -> int:
        """Send what the kernel takes now, and return how many bytes that was. The caller holds the lock."""
        if not self.connected:
            raise ConnectionClosed
        if isinstance(self._sock, ssl.SSLSocket):
            return 0
        try:
            # Sockets with a timeout do not block below Python, whose own `send` would wait.
            return os.write(self._sock.fileno(), frame)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._hang_up()
            raise ConnectionClosed from error

    def _close(self, event: CloseConnection) -> None:
        with self._sending, contextlib.suppress(ConnectionClosed):
            if self.connected:
                self._send(bytes(self._ws.send(event)))
                self.connected = False

    def _hang_up(self) -> None:
        """Shut the connection down, which also wakes up the thread that reads."""
        self.connected = False
        with contextlib.suppress(OSError):
            self._sock.shutdown(network.SHUT_RDWR)

    def _read(self, listener: Listener) -> bool:
        """Read once and handle the events. Returns whether to continue."""
        remaining = listener.until - time.time()
        if remaining <= 0:
            listener.on_expired()
            return False
        self._sock.settimeout(min(PING_SECONDS, remaining))
        try:
            data = self._sock.recv(_RECEIVE_BYTES)
        except TimeoutError:
            return remaining < PING_SECONDS or self._ping()
        if not data:
            return False
        self._pong_received = True
        self._ws.receive_data(data)
        return all(self._handle(event, listener) and self._wait(event, listener) for event in self._ws.events())

    def _wait(self, event: Event, listener: Listener) -> bool:
        """Let other connections run, and wait if the client sends too much. Returns whether to continue."""
        self._time_slice.yield_if_over()
        now = time.monotonic()
        if seconds := self._frame_rate.charge(message_size(event), now):
            if self._frame_rate.is_exhausted(now):
                self._close(CloseConnection(CloseReason.POLICY_VIOLATION, TOO_MANY_MESSAGES))
                return False
            time.sleep(seconds)
            if time.time() >= listener.until:
                listener.on_expired()
                return False
        return self.connected

    def _ping(self) -> bool:
        if self._pong_received:
            self._pong_received = False
            self._send_event(Ping())
            return True
        return False

    def _handle(self, event: Event, listener: Listener) -> bool:
        if isinstance(event, CloseConnection):
            self._close(event.response())
            return False
        if isinstance(event, Ping):
            self._send_event(event.response())
        elif isinstance(event, Message):
            return self._collect(event, listener)
        elif not isinstance(event, Pong):
            return False
        return True

    def _collect(self, event: Message[Any], listener: Listener) -> bool:
        """Collect the fragments of a message, and pass it to the listener when it is complete."""
        self._size += message_size(event)
        if self._size > MAX_MESSAGE_BYTES or len(self._fragments) >= MAX_FRAGMENTS:
            self._close(CloseConnection(CloseReason.MESSAGE_TOO_BIG, MESSAGE_TOO_BIG))
            return False
        self._fragments.append(event.data)
        if event.message_finished:
            whole = type(event.data)().join(self._fragments)
            self._fragments, self._size = [], 0
            listener.on_message(whole)
        return True

    def _end(self) -> None:
        listener, self._listener = self._listener, None  # they refer to each other, which would keep both in memory
        if listener is not None:
            listener.on_closed()
        with contextlib.suppress(OSError):
            self._drain()
        self._hang_up()
        with self._sending:
            self._sock.close()
            self._socket_file.close()

    def _drain(self) -> None:
        """After sending a close frame, read until the client's, for up to _DRAIN_SECONDS."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        self._sock.settimeout(_DRAIN_SECONDS)
        while self._ws.state is ConnectionState.LOCAL_CLOSING and time.monotonic() < deadline:
            data = self._sock.recv(_RECEIVE_BYTES)
            if not data:  # the client closed, or `close` shut our end down for reading: data may still come
                time.sleep(_DRAIN_INTERVAL_SECONDS)
            with contextlib.suppress(RemoteProtocolError, LocalProtocolError):
                self._ws.receive_data(data)
                for _ in self._ws.events():
                    self._time_slice.yield_if_over()
