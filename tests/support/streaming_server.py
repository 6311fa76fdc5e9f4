"""A model server that streams many answers at a time: `python -m tests.support.streaming_server PORT CHUNKS SECONDS`.

`POST /v1/chat/completions` streams CHUNKS chunks, evenly over SECONDS. A prompt that begins with "silent" gets the
headers of an answer and nothing else; one that begins with "mute" gets nothing at all. `GET /stats` returns counts.
It is one process with an event loop of its own, so that it costs little beside what is tested.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.processes import free_port
from tests.support.servers import ROOT, wait_until

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Cache-Control: no-cache\r\n\r\n"
)


class StreamingServer:
    """The server, in its own process."""

    def __init__(self, chunks: int, seconds: float) -> None:
        """Each answer has so many chunks, and takes so many seconds."""
        self.chunks, self.seconds = chunks, seconds

    async def run(self, port: int) -> None:
        self._now = self._most = self._begun = self._completed = self._abandoned = 0
        self._silent: dict[str, float] = {}  # prompts that wait in silence, by when they began
        self._closed: dict[str, float] = {}  # by time.time(), when their connections were closed
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
            "begun": self._begun,
            "completed": self._completed,
            "abandoned": self._abandoned,
            "silent": self._silent,
            "closed": self._closed,
        }

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prompt: str) -> None:
        self._now += 1
        self._begun += 1
        self._most = max(self._most, self._now)
        try:
            if prompt.startswith(("silent", "mute")):
                await self._be_silent(reader, writer, prompt)
            else:
                await self._stream(writer)
                self._completed += 1
        except ConnectionError:
            self._abandoned += 1
            raise
        finally:
            self._now -= 1

    async def _be_silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, prompt: str) -> None:
        if prompt.startswith("silent"):
            writer.write(_HEAD)
        self._silent[prompt] = time.time()
        await reader.read(1)  # returns when the client closes
        self._closed[prompt] = time.time()
        raise ConnectionResetError

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(_HEAD)
        begun = asyncio.get_running_loop().time()
        for number in range(self.chunks):
            due = begun + (number + 1) * self.seconds / self.chunks
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            if writer.is_closing():
                raise ConnectionResetError
            _send_event(writer, {"choices": [{"index": 0, "delta": {"content": f"word{number} "}}]})
        _send_event(writer, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {"prompt_tokens": 1, "completion_tokens": self.chunks, "total_tokens": self.chunks + 1}
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
    """A server that runs as another process."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self._stats = f"http://127.0.0.1:{port}/stats"

    def stats(self) -> dict[str, Any]:
        return httpx.get(self._stats, timeout=30).json()


@contextmanager
def streaming_server(*, chunks: int, seconds: float, port: int | None = None) -> Iterator[Running]:
    port = port or free_port()
    command = [sys.executable, "-m", __name__, str(port), str(chunks), str(seconds)]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        running = Running(port)
        wait_until(lambda: _is_up(running), what="the model server")
        yield running
    finally:
        process.kill()
        process.wait()


def _is_up(running: Running) -> bool:
    try:
        running.stats()
    except httpx.TransportError:
        return False
    return True


if __name__ == "__main__":
    asyncio.run(StreamingServer(int(sys.argv[2]), float(sys.argv[3])).run(int(sys.argv[1])))
