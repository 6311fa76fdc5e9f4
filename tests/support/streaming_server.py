"""A model server that streams many answers at a time: `python -m tests.support.streaming_server PORT CHUNKS SECONDS`.

`POST /v1/chat/completions` streams CHUNKS chunks, evenly over SECONDS. The answer contains the prompt's last word
(`answer_to`). A prompt that begins with "silent" gets the headers of an answer and nothing else; one that begins with
"mute" gets nothing at all; one that begins with "broken" is broken in the middle, each time in another way, until it
was sent four times. `GET /stats` returns counts. It is one process with an event loop of its own, so that it costs
little beside what is tested.
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support import watchdog
from tests.support.processes import free_port
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, wait_until

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Cache-Control: no-cache\r\n\r\n"
)
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s
#: How the answers to a "broken" prompt end in the middle: the connection is reset, or closed, or the body ends.
WAYS_TO_BREAK = ("reset", "close", "end")


def answer_to(prompt: str, chunks: int) -> str:
    """The whole answer."""
    return "".join(_chunk(prompt, number) for number in range(chunks))


def _chunk(prompt: str, number: int) -> str:
    return f"{prompt.split(' ')[-1]}-{number} "


class StreamingServer:
    """The server, in its own process."""

    def __init__(self, chunks: int, seconds: float) -> None:
        """Send each answer in `chunks` chunks over `seconds` seconds."""
        self.chunks, self.seconds = chunks, seconds

    async def run(self, port: int) -> None:
        self._now = self._most = self._started = self._completed = self._abandoned = 0
        self._sent = Counter[str]()  # how often each "broken" prompt was sent
        # By prompt, as time.time(): since when it waits in silence, since when it is answered, when its last connection
        # was closed before the end of the answer.
        self._silent: dict[str, float] = {}
        self._answering: dict[str, float] = {}
        self._closed: dict[str, float] = {}
        server = await asyncio.start_server(self._serve, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await _read(reader):
                path, body = request
                if path == "/stats":
                    _send_json(writer, self._stats())
                else:
                    await self._answer(reader, writer, str(body["messages"][-1]["content"]))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _stats(self) -> dict[str, Any]:
        return {
            "now": self._now,
            "most": self._most,
            "started": self._started,
            "completed": self._completed,
            "abandoned": self._abandoned,
            "silent": self._silent,
            "answering": self._answering,
            "closed": self._closed,
        }

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prompt: str) -> None:
        self._now += 1
        self._started += 1
        self._most = max(self._most, self._now)
        self._answering[prompt] = time.time()
        self._closed.pop(prompt, None)
        try:
            if prompt.startswith(("silent", "mute")):
                await self._be_silent(reader, writer, prompt)
            elif prompt.startswith("broken") and self._sent[prompt] < len(WAYS_TO_BREAK):
                self._sent[prompt] += 1
                await self._break(reader, writer, prompt, WAYS_TO_BREAK[self._sent[prompt] - 1])
            else:
                await self._stream(reader, writer, prompt, self.chunks)
                _send_end(writer, self.chunks)
                self._completed += 1
        except ConnectionError:
            self._abandoned += 1
            self._closed[prompt] = time.time()
            raise
        finally:
            self._now -= 1
            self._answering.pop(prompt, None)

    async def _be_silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prompt: str) -> None:
        if prompt.startswith("silent"):
            writer.write(_HEAD)
        self._silent[prompt] = time.time()
        await reader.read(1)  # returns when the client closes
        raise ConnectionResetError

    async def _break(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prompt: str, way: str) -> None:
        await self._stream(reader, writer, prompt, self.chunks // 2)
        if way == "end":
            writer.write(b"0\r\n\r\n")
            return
        if way == "reset":
            await writer.drain()
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
        raise ConnectionResetError

    async def _stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prompt: str, count: int
    ) -> None:
        """Send the head and the first chunks."""
        writer.write(_HEAD)
        started = asyncio.get_running_loop().time()
        for number in range(count):
            due = started + (number + 1) * self.seconds / self.chunks
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if writer.is_closing() or reader.at_eof():
                raise ConnectionResetError
            _send_event(writer, {"choices": [{"index": 0, "delta": {"content": _chunk(prompt, number)}}]})


def _send_end(writer: asyncio.StreamWriter, chunks: int) -> None:
    _send_event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 1, "completion_tokens": chunks, "total_tokens": chunks + 1}
    _send_event(writer, {"choices": [], "usage": usage})
    _send_chunk(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")


async def _read(reader: asyncio.StreamReader) -> tuple[str, dict[str, Any]] | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    lines = head.split("\r\n")
    length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0)
    body = json.loads(await reader.readexactly(length)) if length else {}
    return lines[0].split(" ")[1], body


def _send_json(writer: asyncio.StreamWriter, value: object) -> None:
    body = json.dumps(value).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def _send_event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    event = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"} | event
    _send_chunk(writer, b"data: " + json.dumps(event).encode() + b"\n\n")


def _send_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%s\r\n" % (len(data), data))


class Running:
    """A server that runs as another process. It can be killed, and started again on the same port."""

    def __init__(self, port: int, chunks: int, seconds: float) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.chunks, self.seconds = chunks, seconds
        self._stats = f"http://127.0.0.1:{port}/stats"
        self._command = [sys.executable, "-m", __name__, str(port), str(chunks), str(seconds)]
        self.start()

    def start(self) -> None:
        """Start the process, and return when it answers."""
        self._process = subprocess.Popen(self._command, cwd=ROOT)
        watchdog.watch(self._process.pid)
        wait_until(lambda: _is_up(self), what="the model server")

    def kill(self) -> None:
        """Kill the process: the kernel closes its connections, and refuses others."""
        self._process.kill()
        self._process.wait(MAX_WAIT_SECONDS)

    def stats(self) -> dict[str, Any]:
        return httpx.get(self._stats, timeout=30).json()


@contextmanager
def streaming_server(*, chunks: int, seconds: float, port: int | None = None) -> Iterator[Running]:
    running = Running(port or free_port(), chunks, seconds)
    try:
        yield running
    finally:
        running.kill()


def _is_up(running: Running) -> bool:
    try:
        running.stats()
    except httpx.TransportError:
        return False
    return True


if __name__ == "__main__":
    asyncio.run(StreamingServer(int(sys.argv[2]), float(sys.argv[3])).run(int(sys.argv[1])))
