"""A client process that holds thousands of sockets, and its controller.

It implements only the part of the protocol that it needs, so that it uses little of the machine that it measures.
"""

import asyncio
import multiprocessing
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tests.support.people import Person
from tests.support.servers import MAX_WAIT_SECONDS

_TEXT, _CLOSE, _PING = 1, 8, 9
_PONG = b"\x8a\x80\0\0\0\0"  # masked, with a mask of zeros
_ENDING = b'{"type":"prompt.completed"'
#: File descriptors that a process needs in addition to its sockets.
_OTHER_DESCRIPTORS = 200


class TooFewDescriptorsError(Exception):
    """The limit on open files is too low for this many sockets."""


def raise_limit(sockets: int) -> None:
    """Raise the limit on open files of this process and its children to this many sockets.

    Raises:
        TooFewDescriptorsError: the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = sockets + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise TooFewDescriptorsError(
            f"{sockets:,} sockets need `ulimit -n {needed}` at least; the hard limit is {hard}."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


class Opened(NamedTuple):
    """How many seconds it took until all sockets had joined, and each."""

    seconds: float
    each: list[float]


class Received(NamedTuple):
    """What all sockets received since the last call."""

    times: list[float]  #: of each finished prompt's event, by the monotonic clock, in order
    sockets: int  #: that received an event
    most: int  #: events that one socket received
    closed: int  #: sockets that were closed so far


class Clients:
    """The client process, seen from its controller."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()

    def open(self, url: str, people: Sequence[Person], *, at_once: int) -> Opened:
        """Join the rooms of these users, one socket for each mention, `at_once` in parallel."""
        host, port = url.removeprefix("http://").split(":")
        return self._ask("open", host, int(port), [(each.username, each.token) for each in people], at_once)

    def received(self, expected: int, timeout: float) -> Received:
        """Wait for this many events or until the timeout, in seconds. Returns what came, and resets the counts."""
        return self._ask("received", expected, timeout)

    def leave(self) -> None:
        """Close all sockets."""
        self._ask("leave")

    def close(self) -> None:
        """End the process, and with it its sockets."""
        self._process.terminate()
        self._process.join(MAX_WAIT_SECONDS)

    def _ask(self, *command: Any) -> Any:
        self._connection.send(command)
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(connection: Connection) -> None:
    asyncio.run(_Holder().serve(connection))


@dataclass
class _Holder:
    """The state of the client process."""

    sockets: list["_Socket"] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def serve(self, connection: Connection) -> None:
        loop = asyncio.get_running_loop()
        commands = {"open": self.open, "received": self.received, "leave": self.leave}
        while True:
            name, *arguments = await loop.run_in_executor(None, connection.recv)
            try:
                connection.send(await commands[name](*arguments))
            except Exception as error:  # raised by the controller
                connection.send(error)

    async def open(self, host: str, port: int, rooms: list[tuple[str, str]], at_once: int) -> Opened:
        loop = asyncio.get_running_loop()
        turns = asyncio.Semaphore(at_once)
        each: list[float] = []

        async def join(username: str, token: str) -> None:
            async with turns:
                started = time.monotonic()
                socket = _Socket(f"{host}:{port}", username, token, self.times)
                await loop.create_connection(lambda: socket, host, port)
                await socket.joined
                each.append(time.monotonic() - started)
                self.sockets.append(socket)

        started = time.monotonic()
        await asyncio.gather(*(join(*room) for room in rooms))
        return Opened(time.monotonic() - started, each)

    async def leave(self) -> None:
        for socket in self.sockets:
            socket.leave()
        self.sockets.clear()

    async def received(self, expected: int, timeout: float) -> Received:
        deadline = time.monotonic() + timeout
        while len(self.times) < expected and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        counts = [socket.endings for socket in self.sockets]
        found = Received(
            self.times.copy(), sum(map(bool, counts)), max(counts, default=0), sum(s.closed for s in self.sockets)
        )
        self.times.clear()
        for socket in self.sockets:
            socket.endings = 0
        return found


class _Socket(asyncio.Protocol):
    """A client socket: records when events of finished prompts arrive, and answers pings."""

    __slots__ = ("_buffer", "_head", "_times", "_transport", "closed", "endings", "joined")

    def __init__(self, host: str, username: str, token: str, times: list[float]) -> None:
        self._head = (
            f"GET /ws/prompts/{username}/ HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        ).encode()
        self._times = times
        self._buffer = b""
        self.joined: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.closed = False
        self.endings = 0

    def leave(self) -> None:
        self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._head)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if not self.joined.done():
            self.joined.set_exception(ConnectionError(f"not joined: {error or self._buffer[:200]!r}"))

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        if self._head:
            head, end, buffer = buffer.partition(b"\r\n\r\n")
            if not end or not head.startswith(b"HTTP/1.1 101"):
                self._buffer = head + end
                return
            self._head = b""
        while (frame := _frame(buffer)) is not None:
            opcode, payload, buffer = frame
            self._take(opcode, payload)
        self._buffer = buffer

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT and payload.startswith(_ENDING):
            self._times.append(time.monotonic())
            self.endings += 1
        elif opcode == _TEXT and not self.joined.done():
            self.joined.set_result(None)
        elif opcode == _PING:
            self._transport.write(_PONG)
        elif opcode == _CLOSE:
            self._transport.close()


def _frame(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Split off a server's first frame: opcode, payload, rest. Returns None if it is incomplete."""
    if len(data) < 2:
        return None
    start, length = 2, data[1]
    if length > 125:
        start = 4 if length == 126 else 10
        length = int.from_bytes(data[2:start])
    end = start + length
    return None if len(data) < end else (data[0] & 15, data[start:end], data[end:])
