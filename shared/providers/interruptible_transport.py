"""Makes the connections of an `httpx.Client` interruptible: `interruption.py` can end each wait for the network.

An interrupted attempt shuts down its socket, so that even a silent provider sees its connection close at once, and the
thread that waits for it goes on. Such a connection never returns to the pool, because its request ends by an
exception.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from ssl import SSLContext, SSLObject
from typing import Any

import httpcore
import httpx

from shared.providers import interruption


def make_interruptible(client: httpx.Client) -> httpx.Client:
    """Replace the network backend of a client that has not connected yet.

    httpx has no parameter for it, though httpcore does; `test_interruptible_transport.py` notices if that changes.
    """
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):  # others: a proxy that `no_proxy` excludes is None
            transport._pool._network_backend = _Backend()
    return client


class ConnectFailedError(httpcore.ConnectError):
    """No connection: `reason` says why, and `host` and `port` name the server or its proxy."""

    def __init__(self, host: str, port: int, reason: Exception) -> None:
        super().__init__(reason)
        self.host, self.port, self.reason = host, port, reason


class StaleConnectionError(httpcore.ReadError):
    """A kept-alive connection was cut before any byte of the response: the server has probably closed it before."""


class InterruptibleStream(httpcore.NetworkStream):
    """A connection. Its waits end if the attempt of the calling thread is interrupted, and raise the reason."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.get_extra_info("socket")
        self._timeout: float | None = -1  # of the socket; unknown
        # A socket is read directly, which costs half as much; not so TLS within TLS, for a proxy.
        self._is_direct = not isinstance(stream.get_extra_info("ssl_object"), SSLObject)
        self._has_answered = False  # whether this connection is reused, at the next request
        self._awaits_answer = False
        self._max_wait: float | None = None
        self._deadline: float | None = None  # of the response, by time.monotonic()

    def end_within(self, seconds: float | None) -> None:
        """Let reads of this response time out after these seconds, whatever arrives; None: as usual."""
        self._deadline = None if seconds is None else time.monotonic() + seconds

    @contextmanager
    def waiting_at_most(self, seconds: float) -> Iterator[None]:
        """Let reads time out after these seconds within the block."""
        self._max_wait = seconds
        try:
            yield
        finally:
            self._max_wait = None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        attempt = interruption.current()
        data = b""
        failure: Exception | None = None
        try:
            with attempt.calling(self._shut_down):
                data = self._receive(max_bytes, self._wait(timeout))
        except TimeoutError as error:
            failure = httpcore.ReadTimeout(error)
        except (OSError, httpcore.ReadError) as error:
            failure = httpcore.ReadError(error)
        attempt.check()
        if data:
            self._has_answered, self._awaits_answer = True, False
        elif self._has_answered and self._awaits_answer and not isinstance(failure, httpcore.ReadTimeout):
            raise StaleConnectionError from failure
        elif failure is not None:
            raise failure
        return data

    def _wait(self, timeout: float | None) -> float | None:
        """How long the next read may wait."""
        if self._max_wait is not None:
            timeout = self._max_wait
        if self._deadline is None:
            return timeout
        rest = self._deadline - time.monotonic()
        if rest <= 0:
            raise TimeoutError
        return rest if timeout is None else min(rest, timeout)

    def _receive(self, max_bytes: int, timeout: float | None) -> bytes:
        if not self._is_direct:
            return self._stream.read(max_bytes, timeout)
        if timeout != self._timeout:
            self._socket.settimeout(timeout)
            self._timeout = timeout
        return self._socket.recv(max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._awaits_answer, self._timeout, self._deadline = True, timeout, None
        with _interruptible(self._shut_down):
            self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        # The handshake takes the socket away from this object, so a duplicate of its descriptor is shut down.
        with socket.socket(fileno=os.dup(self._socket.fileno())) as duplicate:
            try:
                with _interruptible(partial(_shut_down, duplicate)):
                    stream = self._stream.start_tls(ssl_context, server_hostname, timeout)
            except BaseException:
                _shut_down(duplicate)
                self._stream.close()
                raise
        return InterruptibleStream(stream)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def _shut_down(self) -> None:
        _shut_down(self._socket)


class _Backend(httpcore.NetworkBackend):
    """httpcore's own backend with interruptible connections. Connecting itself ends by its timeout only."""

    def __init__(self) -> None:
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        attempt = interruption.current()
        attempt.check()
        try:
            stream = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        except httpcore.ConnectError as error:
            raise ConnectFailedError(host, port, error.__context__ or error) from error  # type: ignore[arg-type]
        if attempt.reason is not None:
            stream.close()
            attempt.check()
        return InterruptibleStream(stream)

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


@contextmanager
def _interruptible(shut_down: Callable[[], None]) -> Iterator[None]:
    attempt = interruption.current()
    try:
        with attempt.calling(shut_down):
            yield
    finally:
        attempt.check()


def _shut_down(connection: socket.socket) -> None:
    """Shut down a socket from any thread. `SSLSocket.shutdown` would drop the TLS session that another one uses."""
    with suppress(OSError):  # it is closed already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
