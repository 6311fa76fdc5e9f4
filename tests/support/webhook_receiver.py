"""A receiver of webhooks, and a comparison of what it got with what it should get."""

import asyncio
import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from standardwebhooks import Webhook as Verifier

from tests.support.servers import MAX_WAIT_SECONDS

KEY = b"a key of the tests, 32 bytes long"
#: A receiver refuses older signatures.
MAX_AGE_SECONDS = 300
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def answer(status: int, *headers: str, body: bytes = b"") -> bytes:
    """A whole response."""
    lines = [f"HTTP/1.1 {status} Status", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass(frozen=True)
class Request:
    """What a receiver got. Names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    arrived: float = field(default_factory=time.time)

    @property
    def event(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def seq(self) -> int:
        return self.event["data"]["seq"]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verify(self, key: bytes = KEY) -> None:
        """Verify the signature as a receiver does, within five minutes. Raises WebhookVerificationError."""
        Verifier(key).verify(self.body, self.headers)

    def was_signed(self, key: bytes) -> bool:
        """Whether a receiver accepted the signature when the request arrived."""
        timestamp = int(self.headers["webhook-timestamp"])
        expected = Verifier(key).sign(self.id, datetime.fromtimestamp(timestamp, UTC), self.body.decode())
        is_fresh = abs(timestamp - self.arrived) < MAX_AGE_SECONDS
        return is_fresh and expected in self.headers["webhook-signature"].split(" ")


class WebhookReceiver:
    """An HTTP server for any number of connections, in one thread.

    Args:
        reply: The response to a request; None to keep silent.
    """

    def __init__(self, reply: Callable[[Request], bytes | None] = lambda _: OK) -> None:
        self.reply = reply
        self.received: list[Request] = []
        self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=2_048, limit=4 * 2**20)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(MAX_WAIT_SECONDS)
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "WebhookReceiver":
        return self

    def __exit__(self, *error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(MAX_WAIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(MAX_WAIT_SECONDS)
        self._loop.close()

    def seqs(self, path: str = "/") -> list[int]:
        """The numbers of the events that this path got."""
        return [request.seq for request in self.received if request.path == path]

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                fields = (line.split(": ", 1) for line in head[1:] if line)
                headers = {name.lower(): value for name, value in fields}
                body = await reader.readexactly(int(headers["content-length"]))
                request = Request(head[0].split(" ")[1], headers, body)
                self.received.append(request)
                reply = self.reply(request)
                if reply is None:
                    await reader.read()  # until the client closes
                    break
                writer.write(reply)
        writer.close()


@dataclass
class Counts:
    """What endpoints got. All but `requests` and `repeated` must be 0."""

    requests: int = 0
    repeated: int = 0  #: with the `webhook-id` and the body of an earlier one
    lost: int = 0
    unsigned: int = 0
    misdelivered: int = 0  #: events of another endpoint
    changed: int = 0  #: repeated with another body, or under another `webhook-id`
    disordered: int = 0  #: apart from repetitions

    def broken(self) -> dict[str, int]:
        fine = ("requests", "repeated")
        return {name: count for name, count in vars(self).items() if count and name not in fine}


@dataclass
class Expected:
    """What an endpoint should get: the events with these numbers, of this user, signed with this key."""

    webhook_id: int
    user: str
    key: bytes
    seqs: Sequence[int]


def count(received: Sequence[Request], expected: Mapping[str, Expected]) -> Counts:
    """Compare what a receiver got with what the endpoints, by their paths, should get."""
    counts = Counts(len(received))
    for path, endpoint in expected.items():
        bodies: dict[str, bytes] = {}
        seqs: list[int] = []
        for request in (request for request in received if request.path == path):
            counts.unsigned += not request.was_signed(endpoint.key)
            counts.misdelivered += request.event["data"]["user"] != endpoint.user
            if request.id in bodies:
                counts.repeated += 1
                counts.changed += bodies[request.id] != request.body
            else:
                seqs.append(request.seq)
            bodies[request.id] = request.body
            counts.changed += request.id != f"msg_{endpoint.webhook_id}_{request.seq}"
        counts.lost += len(set(endpoint.seqs) - set(seqs))
        counts.misdelivered += len(set(seqs) - set(endpoint.seqs))
        counts.disordered += sum(later < earlier for earlier, later in pairwise(seqs))
    counts.misdelivered += sum(request.path not in expected for request in received)
    return counts


def make_key() -> bytes:
    return secrets.token_bytes(32)
