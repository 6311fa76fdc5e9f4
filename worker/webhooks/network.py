"""Connections to webhooks: only to addresses that were checked, and with a bound for what they send."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Any

import httpcore
from httpcore import AnyIOBackend, AsyncNetworkBackend, AsyncNetworkStream

from shared.webhooks.addresses import is_public
from worker.webhooks.daemon_threads import DaemonThreads

#: A name is looked up by a thread that nothing can interrupt, and a hanging name server keeps one for 10 s or more.
MAX_LOOK_UPS = 2_000
#: How many addresses of a name are tried.
MAX_ADDRESSES = 4
#: How long to wait for each of them but the last.
CONNECT_SECONDS = 3.0
#: How much of a response is read: interim responses, head, and as much of the body as there is.
MAX_RESPONSE_BYTES = 64 * 1024

#: Gives the addresses of a host, in the order in which they are to be tried. Raises OSError.
LookUp = Callable[[str, int], Sequence[str]]


class AddressRefusedError(httpcore.ConnectError):
    """The host has an address that is not public."""


class ResponseTooLargeError(httpcore.ReadError):
    """The response has more than MAX_RESPONSE_BYTES."""


def look_up(host: str, port: int) -> list[str]:
    """Ask the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedBackend(AsyncNetworkBackend):
    """Looks a name up once, checks all of its addresses, and connects to one of these, so no second look-up (DNS
    rebinding) can lead elsewhere. Host and SNI keep the name. There is no proxy.

    Args:
        allow_private: Whether private addresses are allowed, too.
    """

    def __init__(self, *, allow_private: bool, look_up: LookUp = look_up) -> None:
        self._allow_private = allow_private
        self._look_up = look_up
        self._threads = DaemonThreads("webhook-dns", MAX_LOOK_UPS)
        self._running: dict[tuple[str, int], asyncio.Task[Sequence[str]]] = {}
        self._backend = AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        """Connect to the first address that accepts a connection. Raises httpcore.ConnectError or ConnectTimeout."""
        addresses = await self._addresses(host, port)
        for address in addresses[:-1]:
            try:
                return _BoundedStream(await self._backend.connect_tcp(address, port, CONNECT_SECONDS), _Budget())
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return _BoundedStream(await self._backend.connect_tcp(addresses[-1], port, timeout), _Budget())

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError, RuntimeError) as error:
            raise httpcore.ConnectError(error) from error
        if not self._allow_private and not all(is_public(ip_address(address)) for address in addresses):
            raise AddressRefusedError
        if not addresses:
            raise httpcore.ConnectError
        return addresses[:MAX_ADDRESSES]

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        """Look a name up, once for all concurrent callers, so that a name keeps at most one thread."""
        key = (host, port)
        if key not in self._running:
            task = asyncio.create_task(self._threads.run(partial(self._look_up, host, port)))
            task.add_done_callback(lambda done: self._forget(key, done))
            self._running[key] = task
        return await asyncio.shield(self._running[key])

    def _forget(self, key: tuple[str, int], done: asyncio.Task[Sequence[str]]) -> None:
        del self._running[key]
        if not done.cancelled():
            done.exception()  # its caller may no longer wait for it


@dataclass
class _Budget:
    """What may still be read."""

    bytes: int = MAX_RESPONSE_BYTES


class _BoundedStream(AsyncNetworkStream):
    """A connection whose responses are bounded. A write begins a request, and with it the next response."""

    def __init__(self, stream: AsyncNetworkStream, budget: _Budget) -> None:
        self._stream = stream
        self._budget = budget

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = await self._stream.read(max_bytes, timeout)
        self._budget.bytes -= len(data)
        if self._budget.bytes < 0:
            raise ResponseTooLargeError
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._budget.bytes = MAX_RESPONSE_BYTES
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        connection = self._stream.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError):
                # A process that was forked meanwhile has a copy of the socket, which would keep the connection open.
                connection.shutdown(socket.SHUT_RDWR)
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> AsyncNetworkStream:
        try:
            return _BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._budget)
        except BaseException:  # httpcore does not close a connection whose handshake is cancelled
            await self.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
