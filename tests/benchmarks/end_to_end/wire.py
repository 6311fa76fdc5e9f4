"""Minimal HTTP and WebSocket clients for the load generator, with no more parsing than it needs.

A library would use more CPU than the measured services.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

_TEXT, _CLOSE, _PING = 1, 8, 9
_PONG_HEAD = 0x8A
#: The maximum length in a frame's second byte, and its markers for lengths of 2 and of 8 bytes.
_MAX_SHORT_LENGTH, _LENGTH_16, _LENGTH_64 = 125, 126, 127


class Answer(NamedTuple):
    """The parts of a response that are evaluated."""

    status: int
    retry_after: bool


class ClosedError(ConnectionError):
    """The server closed the connection before it answered."""


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Future[Answer] | None = None

    @classmethod
    async def open(cls, host: str, port: int) -> "Connection":
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def request(self, data: bytes) -> asyncio.Future[Answer]:
        """Send these bytes. The future raises ClosedError if the connection ends before the response."""
        self._waiting = asyncio.get_running_loop().create_future()
        if self.is_open:
            self._transport.write(data)
        else:
            self._waiting.set_exception(ClosedError())
        return self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        head = head.lower()
        length = _content_length(head)
        if len(body) < length:
            return
        self._buffer = body[length:]
        if b"\r\nconnection: close" in head:
            self.close()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Answer(int(head[9:12]), b"\r\nretry-after:" in head))

    def connection_lost(self, _: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ClosedError())


def _content_length(head: bytes) -> int:
    _, found, after = head.partition(b"\r\ncontent-length:")
    if not found:
        raise ValueError(f"a response without a Content-Length: {head!r}")
    return int(after.partition(b"\r\n")[0])


class Socket(asyncio.Protocol):
    """A listening WebSocket. It answers pings, and passes text messages on as bytes."""

    def __init__(self, request: bytes, on_message: Callable[[bytes], None]) -> None:
        self._request = request
        self._on_message = on_message
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._parts = b""  # of a message that comes in several frames
        self._is_upgraded = False
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.close_code: int | None = None

    @classmethod
    async def join(cls, host: str, port: int, path: str, token: str, on_message: Callable[[bytes], None]) -> "Socket":
        """Return after the server's greeting. Raise ClosedError if it rejects the handshake or closes instead."""
        lines = (
            f"GET {path} HTTP/1.1",
            f"Host: {host}:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            f"Authorization: Bearer {token}",
        )
        request = "\r\n".join((*lines, "", "")).encode()
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(lambda: cls(request, on_message), host, port)
        await socket.greeted
        return socket

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._is_upgraded and not self._read_handshake():
            return
        while self._read_frame():
            pass

    def connection_lost(self, _: Exception | None) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(ClosedError(self.close_code))

    def _read_handshake(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        if not self._buffer.startswith(b"HTTP/1.1 101"):
            self._transport.close()
            return False
        del self._buffer[: end + 4]
        self._is_upgraded = True
        return True

    def _read_frame(self) -> bool:
        """Take a frame off the buffer. Return whether it held a whole one."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        length, start = buffer[1], 2
        if length == _LENGTH_16:
            start = 4
        elif length == _LENGTH_64:
            start = 10
        if len(buffer) < start:
            return False
        if length > _MAX_SHORT_LENGTH:
            length = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + length:
            return False
        kind, payload = buffer[0], bytes(buffer[start : start + length])
        del buffer[: start + length]
        self._read(kind & 0x0F, payload, is_last=bool(kind & 0x80))
        return True

    def _read(self, opcode: int, payload: bytes, *, is_last: bool) -> None:
        if opcode == _PING:
            # A client must mask its frames; a mask of zeros leaves the bytes unchanged.
            self._transport.write(bytes((_PONG_HEAD, 0x80 | len(payload), 0, 0, 0, 0)) + payload)
        elif opcode == _CLOSE:
            self.close_code = int.from_bytes(payload[:2], "big")
            self._transport.close()
        elif opcode <= _TEXT:
            self._parts += payload
            if is_last:
                message, self._parts = self._parts, b""
                self._handle_message(message)

    def _handle_message(self, message: bytes) -> None:
        if self.greeted.done():
            self._on_message(message)
        elif message.startswith(b'{"error"'):  # a close follows
            return
        else:
            self.greeted.set_result(None)
