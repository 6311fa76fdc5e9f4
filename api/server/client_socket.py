"""A client's TCP connection, with time slices on the event loop and deadlines for requests and responses."""

import contextlib
import errno
import socket as network
import struct
import time
from typing import Any, Protocol

import gevent
import gevent.socket
from gevent.hub import Waiter

from api.server.time_slice import TimeSlice

#: For how long input is discarded before a close, as nginx's `lingering_close` does, and the pause after each read.
LINGER_SECONDS = 2.0
_LINGER_PAUSE_SECONDS = 0.01
_LINGER_BYTES = 256 * 1024
_READ = 1  # of libev
#: SO_LINGER with a timeout of 0: closing discards what was not sent, which otherwise stays in the kernel for minutes.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class RequestTimeoutError(Exception):
    """A request did not arrive in time. It is not an OSError, which gunicorn would log with a traceback."""


class EarlyAnswers(Protocol):
    """Answers requests from their bytes, before anything parses them."""

    def answer_early(self, client: "ClientSocket", data: bytes) -> bytes | None:
        """The whole response to the request that these first bytes of it are; None to have it parsed."""


class ClientSocket(gevent.socket.socket):  # type: ignore[misc]
    """The server's end of a connection.

    The first byte of a request must arrive within the idle timeout; otherwise `recv` reports the end of the input. The
    rest of it must arrive within `request_timeout` seconds of the first byte, and what `extend_request` adds. The
    client must read what each `sendall` sends within `request_timeout`, too; otherwise the connection is reset. Once
    the connection is a WebSocket, only the WebSocket's own timeouts apply.
    """

    #: How many requests this process has received the beginning of.
    requests_received = 0

    __slots__ = (
        "_early_answers",
        "_idle_deadline",
        "_request_deadline",
        "_request_timeout",
        "_time_slice",
        "is_websocket",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._time_slice = TimeSlice()
        self._request_timeout = 0.0
        self._idle_deadline = 0.0
        self._request_deadline: float | None = None
        self._early_answers: EarlyAnswers | None = None
        self.is_websocket = False

    def await_request(
        self, request_timeout: float, idle_timeout: float, early_answers: EarlyAnswers | None = None
    ) -> None:
        """Expect the first byte of a request within `idle_timeout` seconds, and all of it `request_timeout` later.

        `early_answers` may answer it, if nothing of it has arrived yet: what is received next is its beginning.
        """
        self._early_answers = early_answers
        self._request_timeout = request_timeout
        self._idle_deadline = time.monotonic() + idle_timeout
        self._request_deadline = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing of the next request has arrived."""
        return self._request_deadline is None

    def begin_request(self) -> None:
        """Expect the body of a request whose head has arrived."""
        self.settimeout(self._request_timeout)
        if self._request_deadline is None:  # the head came together with the request before
            self._request_deadline = time.monotonic() + self._request_timeout

    def extend_request(self, seconds: float) -> None:
        """Give the request more time. Its handler does so for what has arrived of a large body."""
        if self._request_deadline is not None:
            self._request_deadline += seconds

    def yield_if_over(self) -> None:
        """Let others run if this connection's time slice is over. For pipelined requests, which need no `recv`."""
        self._time_slice.yield_if_over()

    def become_websocket(self) -> None:
        """Leave timeouts to the WebSocket from now on."""
        self.is_websocket = True

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive a part of a request, or of a WebSocket's frames.

        Raises:
            RequestTimeoutError: the request's time is up.
        """
        self._time_slice.yield_if_over()
        if self.is_websocket:
            # Python calls Python here, which takes no C stack. Otherwise each idle socket would keep 1 KB of it.
            data: bytes = super().recv(size, flags)
            return data
        if self._early_answers is not None and self._request_deadline is None:
            return self._receive_first(self._early_answers, size)
        return self._receive_part(size, flags)

    def _receive_first(self, early_answers: EarlyAnswers, size: int) -> bytes:
        """Receive the beginning of a request without an early answer; nothing at the end of the idle timeout.

        The event loop itself gives early answers. To switch to this greenlet, and to start a timeout for each of them,
        would cost more than the answer.
        """
        data = self._receive_at_once(early_answers, size)
        if data is None:
            data = self._wait_for_first(early_answers, size)
        if data:
            self._begin()
        return data

    def _wait_for_first(self, early_answers: EarlyAnswers, size: int) -> bytes:
        waiter: Waiter[bytes] = Waiter()

        def on_readable() -> None:
            try:
                data = self._receive_at_once(early_answers, size)
            except BaseException as error:
                waiter.throw(error)
            else:
                if data is not None:
                    waiter.switch(data)

        with gevent.get_hub().loop.io(self.fileno(), _READ) as readable:
            readable.start(on_readable)
            while (seconds := self._idle_deadline - time.monotonic()) > 0:  # an answer moves it
                with gevent.Timeout(seconds, False):
                    data: bytes = waiter.get()
                    return data
        return b""

    def _receive_at_once(self, early_answers: EarlyAnswers, size: int) -> bytes | None:
        """Receive what has arrived. Returns None if it is answered, or if there is nothing."""
        try:
            data: bytes = self._sock.recv(size)
        except BlockingIOError:
            return None
        answer = early_answers.answer_early(self, data) if data else None
        if answer is None:
            return data
        ClientSocket.requests_received += 1
        with contextlib.suppress(BlockingIOError):
            if self._sock.send(answer) == len(answer):
                return None
        raise ConnectionResetError(errno.ECONNRESET, "the client does not read the responses")

    def _receive_part(self, size: int, flags: int) -> bytes:
        deadline = self._idle_deadline if self._request_deadline is None else self._request_deadline
        try:
            data = self._receive_until(deadline, size, flags)
        except TimeoutError:
            if self._request_deadline is None:
                return b""
            raise RequestTimeoutError(f"the request did not arrive within {self._request_timeout:g} s") from None
        if self._request_deadline is None:
            self._begin()
        return data

    def _begin(self) -> None:
        self._request_deadline = time.monotonic() + self._request_timeout
        ClientSocket.requests_received += 1

    def sendall(self, *args: Any) -> None:
        """Send all of the data.

        Raises:
            ConnectionResetError: the client did not read it in time.
        """
        self._time_slice.yield_if_over()
        try:
            super().sendall(*args)
        except TimeoutError:
            if self.is_websocket:
                raise
            self.setsockopt(network.SOL_SOCKET, network.SO_LINGER, _RESET_ON_CLOSE)
            # gunicorn ignores this error number; others are logged with a traceback.
            raise ConnectionResetError(errno.ECONNRESET, "the client did not read the response in time") from None

    def stop_reading(self) -> None:
        """End the input for the greenlet that waits for it. A response that is being sent is not affected."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(network.SHUT_RD)  # gevent's own `shutdown` raises an error in that greenlet

    def linger(self) -> None:
        """End the output, and discard input until the client closes, for up to LINGER_SECONDS.

        Closing with unread input resets the connection, and a client that is still sending would not see the response.
        """
        deadline = time.monotonic() + LINGER_SECONDS
        with contextlib.suppress(OSError):
            self.shutdown(network.SHUT_WR)
            while self._receive_until(deadline, _LINGER_BYTES):
                gevent.sleep(_LINGER_PAUSE_SECONDS)

    def _receive_until(self, deadline: float, size: int, flags: int = 0) -> bytes:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        send_timeout = self.gettimeout()
        self.settimeout(remaining)
        try:
            data: bytes = super().recv(size, flags)
            return data
        finally:
            self.settimeout(send_timeout)
