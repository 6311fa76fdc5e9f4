"""The attackers' process, and what attacks are made of: connections, floods, crowds of connections, and calls."""

import contextlib
import http.client
import json
import multiprocessing
import os
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tests.support.people import Person
from tests.support.servers import MAX_WAIT_SECONDS

MEGABYTE = 1_000_000  # a second: the rate of a flood
_TIMEOUT_SECONDS = 60
_PIECE_SECONDS = 0.01
_PIECE_BYTES = 65_536
#: An attacker has a machine of its own. Here it should not take the CPU from the neighbour, and from what it attacks.
_NICENESS = 10


@dataclass(frozen=True)
class Target:
    """What is attacked, and by whom."""

    host: str
    port: int
    redis_url: str
    neighbour: str
    neighbour_id: int
    users: Sequence[Person]


class Findings(NamedTuple):
    """What an attack has counted, and what should not have happened to it."""

    notes: list[str]
    breaches: list[str]


class Attacker:
    """One attack, in the attackers' process: `begin` ends its preparation, and `is_over` its time."""

    def __init__(self, target: Target, seconds: float, is_short: bool, begin: Callable[[], None]) -> None:
        self.target = target
        self.users = target.users
        self.counts: Counter[str] = Counter()
        self.breaches: list[str] = []
        self._seconds = seconds
        self._is_short = is_short
        self._begin = begin
        self._deadline = time.monotonic() + _TIMEOUT_SECONDS
        self._opened = contextlib.ExitStack()

    def size(self, long: int, short: int) -> int:
        """The size of the attack in the long and in the short form."""
        return short if self._is_short else long

    def begin(self) -> None:
        """The preparation is over. Its requests do not count as an attack."""
        self._begin()
        self._deadline = time.monotonic() + self._seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    def wait(self, share: float = 1.0) -> None:
        """Wait until this share of the time is over."""
        time.sleep(max(0.0, self._deadline - self._seconds * (1 - share) - time.monotonic()))

    def close(self) -> None:
        """Close all connections."""
        self._opened.close()

    def connect(self, *, receive_buffer: int = 0) -> socket.socket:
        """Open a connection, which `close` closes."""
        connection = self._opened.enter_context(socket.socket())
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(_TIMEOUT_SECONDS)
        connection.connect((self.target.host, self.target.port))
        return connection

    def flood(self, opening: Callable[[], socket.socket], data: bytes, *, rate: float = MEGABYTE) -> None:
        """Send data again and again, at this many bytes a second. When the server closes, open another connection."""
        started, sent = time.monotonic(), 0
        while not self.is_over:
            with contextlib.suppress(OSError), opening() as connection:
                self.counts["connections"] += 1
                connection.setblocking(False)
                rest = b""
                while not self.is_over and _discard(connection):
                    allowed = int((time.monotonic() - started) * rate) - sent
                    while allowed > 0 and (taken := _send(connection, (rest := rest or data)[:_PIECE_BYTES])):
                        allowed, sent, rest = allowed - taken, sent + taken, rest[taken:]
                    time.sleep(_PIECE_SECONDS)
            time.sleep(_PIECE_SECONDS)
        self.counts["kB"] += sent // 1000

    def crowd(self, head: bytes, count: int) -> list[socket.socket]:
        """Open connections, and send this on each. Those beyond the server's limits are closed, or never accepted."""
        connections = []
        for _ in range(count):
            if self.is_over:
                break
            connection = self.connect()
            connection.sendall(head)
            connection.setblocking(False)
            connections.append(connection)
        self.counts["connections"] += len(connections)
        return connections

    def count_statuses(self, connections: Sequence[socket.socket]) -> None:
        """Count the responses that have arrived, by status."""
        for connection in connections:
            with contextlib.suppress(OSError):
                received = connection.recv(65536)
                self.counts[received[9:12].decode(errors="replace") or "closed"] += 1

    def client(self, user: Person | None = None, **headers: str) -> "Client":
        """An HTTP client with a connection of its own, logged in as this user."""
        if user is not None:
            headers["Authorization"] = f"Bearer {user.token}"
        return self._opened.enter_context(contextlib.closing(Client(self, headers)))

    def together(self, *acts: Callable[[], None]) -> None:
        """Do all of these at the same time. Returns when all have ended."""

        def act_safely(act: Callable[[], None]) -> None:
            try:
                act()
            except Exception:
                self.breaches.append(traceback.format_exc())

        threads = [threading.Thread(target=act_safely, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(MAX_WAIT_SECONDS)


class Client:
    """Calls of the API over one connection, which is opened again when the server has closed it."""

    def __init__(self, attacker: Attacker, headers: dict[str, str]) -> None:
        self._attacker = attacker
        self._headers = headers
        target = attacker.target
        self._connection = http.client.HTTPConnection(target.host, target.port, timeout=_TIMEOUT_SECONDS)

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Send a request, and count its status. Returns the status (0: no response) and the JSON of the response."""
        data = None if body is None else json.dumps(body)
        headers = self._headers | headers | ({} if data is None else {"Content-Type": "application/json"})
        try:
            self._connection.request(method, path, data, headers)
            response = self._connection.getresponse()
            status, received = response.status, response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            status, received = 0, b""
        self._attacker.counts[str(status)] += 1
        return status, json.loads(received) if received else None

    def submit(self, text: str) -> int | None:
        """Submit a prompt. Returns its id, or None if it is refused."""
        status, prompt = self.call("POST", "/prompts/", {"prompt_text": text, "websocket": True})
        return prompt["id"] if status == 202 else None

    def submit_all(self, text: str, count: int) -> list[int]:
        """Submit this many. Returns the ids of those that are accepted."""
        return [prompt_id for _ in range(count) if (prompt_id := self.submit(text)) is not None]

    def close(self) -> None:
        self._connection.close()


def _send(connection: socket.socket, data: bytes) -> int:
    """Send what is taken at once. Returns how many bytes that were."""
    try:
        return connection.send(data)
    except BlockingIOError:
        return 0


def _discard(connection: socket.socket) -> bool:
    """Discard what has arrived. Returns False if the server has closed the connection."""
    try:
        return bool(connection.recv(65536))
    except BlockingIOError:
        return True


Act = Callable[[Attacker], None]


class AttackerProcess:
    """The process in which attacks run, seen from the suite: their CPU time is not the neighbour's."""

    def __init__(self, target: Target) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, target), daemon=True)
        self._process.start()

    def prepare(self, act: Act, users: Sequence[Person], seconds: float, is_short: bool) -> None:
        """Start an attack of these users. Returns when it is prepared."""
        self._connection.send((act, users, seconds, is_short))
        self._expect("begin")

    def begin(self) -> None:
        self._connection.send("go")

    @property
    def has_ended(self) -> bool:
        return self._connection.poll()

    def findings(self) -> Findings:
        """Wait until the attack has ended, with all of its connections."""
        return self._expect("end")

    def close(self) -> None:
        self._process.terminate()
        self._process.join(MAX_WAIT_SECONDS)

    def _expect(self, what: str) -> Any:
        kind, value = self._connection.recv()
        if kind != what:
            raise AssertionError(f"the attack failed: {value}")
        return value


def _serve(connection: Connection, target: Target) -> None:
    os.nice(_NICENESS)

    def begin() -> None:
        connection.send(("begin", None))
        connection.recv()

    with contextlib.suppress(EOFError):
        for act, users, seconds, is_short in iter(connection.recv, None):
            connection.send(_perform(act, Attacker(_with_users(target, users), seconds, is_short, begin)))


def _with_users(target: Target, users: Sequence[Person]) -> Target:
    return Target(target.host, target.port, target.redis_url, target.neighbour, target.neighbour_id, users)


def _perform(act: Act, attacker: Attacker) -> tuple[str, object]:
    try:
        with contextlib.closing(attacker):
            act(attacker)
    except Exception:
        return "error", traceback.format_exc()
    notes = [f"{number:,} {what}" for what, number in sorted(attacker.counts.items())]
    return "end", Findings(notes, attacker.breaches)


def repeat(attacker: Attacker, act: Callable[[], object]) -> None:
    """Do this until the attack is over."""
    while not attacker.is_over:
        act()


def split(count: int, parts: int) -> Iterator[int]:
    """Split a number into parts of about the same size."""
    for part in range(parts):
        yield count // parts + (part < count % parts)
