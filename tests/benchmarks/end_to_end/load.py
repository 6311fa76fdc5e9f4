"""Users who submit prompts and listen: closed loops for throughput, open loops for latency.

Times come from `time.perf_counter`, in seconds.
"""

import asyncio
import contextlib
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.benchmarks.end_to_end.sent_prompts import SentPrompt, figures, quantiles
from tests.benchmarks.end_to_end.wire import ClosedError, Connection, Socket

#: Each prompt's text starts with its number in this many digits, which identifies its push.
_DIGITS = 8
_TEXT = "{:08d} Why do the tides of the ocean follow the moon, and what would they do without it?"
#: How long a client waits after a rejected submission.
_BACK_OFF_SECONDS = 0.05
#: How long after the last response or push the remaining prompts count as lost.
PATIENCE_SECONDS = 15.0
#: The maximum number of connections of an open loop. Further requests wait here, and their wait counts as latency.
_MAX_CONNECTIONS = 4_096
#: A service has recovered from an overload if it pushes a single prompt within this time.
RECOVERED_SECONDS = 0.05
_CONCURRENT_JOINS, _JOIN_ATTEMPTS = 20, 20

OnEdge = Callable[[str], None]


@dataclass(slots=True)
class Client:
    """A submitting client with its own connection, which opens when it is needed."""

    connection: Connection | None = None

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()


class Load:
    """All users of a service, each with a socket.

    Args:
        target: The fields of `Contender`: `url`, `submit_path`, `accounts` as [[username, token], …]. The first
            `active` accounts submit.
        on_edge: Called with "begin" and "end" when the measured part of a phase starts and ends.
    """

    def __init__(self, target: dict[str, Any], on_edge: OnEdge) -> None:
        address = urlsplit(target["url"])
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 80
        self._accounts: list[tuple[str, str]] = [tuple(account) for account in target["accounts"]]
        self._active: int = target["active"]
        self._heads = [self._head(target["submit_path"], token) for _, token in self._accounts[: self._active]]
        self._on_edge = on_edge
        self._sockets: list[Socket | None] = [None] * len(self._accounts)
        self._prompts: list[SentPrompt] = []
        self._anomalies: Counter[str] = Counter()
        self._outstanding = asyncio.Semaphore(0)  # limits a closed loop's outstanding prompts
        self._idle: list[Client] = []
        self._last_change = 0.0  # when something was answered or pushed

    async def join(self) -> dict[str, Any]:
        """Open a socket for each user who has none, and retry if the service closes it (as it may when it is busy).

        Returns:
            How long that took, in seconds, and how often a user was rejected.
        """
        started = time.perf_counter()
        turn = asyncio.Semaphore(_CONCURRENT_JOINS)
        missing = [user for user, socket in enumerate(self._sockets) if socket is None or not socket.is_open]
        turned_away = sum(await asyncio.gather(*(self._join(user, turn) for user in missing)))
        return {"seconds": round(time.perf_counter() - started, 2), "turned_away": turned_away}

    async def _join(self, user: int, turn: asyncio.Semaphore) -> int:
        username, token = self._accounts[user]
        path = f"/ws/prompts/{username}/"
        async with turn:
            for times in range(_JOIN_ATTEMPTS):
                with contextlib.suppress(OSError):
                    self._sockets[user] = await Socket.join(
                        self._host, self._port, path, token, lambda message: self._on_message(user, message)
                    )
                    return times
                await asyncio.sleep(_BACK_OFF_SECONDS)
        raise RuntimeError(f"{username} was rejected {_JOIN_ATTEMPTS} times")

    async def closed(self, *, connections: int, outstanding: int, warm_up: float, seconds: float) -> dict[str, Any]:
        """Run a closed loop: each connection submits its next prompt once the last is accepted and fewer than
        `outstanding` are pending, so that the service is saturated and no queue grows.
        """
        await self.join()
        first = len(self._prompts)
        self._outstanding = asyncio.Semaphore(outstanding)
        is_over = asyncio.Event()

        async def submit_until_over() -> None:
            client = Client()
            while await self._outstanding.acquire() and not is_over.is_set():
                sent = await self._submit(client)
                if not sent.is_accepted:
                    if not sent.pushed:
                        self._outstanding.release()
                    await asyncio.sleep(_BACK_OFF_SECONDS)
            client.close()

        clients = [asyncio.create_task(submit_until_over()) for _ in range(connections)]
        started, ended = await self._window(warm_up, seconds)
        is_over.set()
        for _ in clients:
            self._outstanding.release()
        await asyncio.wait(clients, timeout=PATIENCE_SECONDS)
        await self._drain(first)
        return self._figures(first, started, ended)

    async def open(
        self, *, rate: float, warm_up: float, seconds: float, even: bool = False, recovery: bool = False
    ) -> dict[str, Any]:
        """Run an open loop: submit `rate` prompts per second, whatever happens to the earlier ones. Latencies count
        from when each prompt was due.

        Args:
            even: Submit at equal intervals instead of at random (a Poisson process).
            recovery: Also measure how long after the last prompt a single one is pushed quickly again.
        """
        await self.join()
        first = len(self._prompts)
        turn = asyncio.Semaphore(_MAX_CONNECTIONS)
        window = asyncio.create_task(self._window(warm_up, seconds))
        tasks = set()
        for due in _schedule(rate, warm_up + seconds, even=even):
            delay = due - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            task = asyncio.create_task(self._submit_in_turn(turn, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        started, ended = await window
        found = {"recovered_s": await self._recovery()} if recovery else {}
        await self._drain(first)
        return self._figures(first, started, ended) | found

    async def _submit_in_turn(self, turn: asyncio.Semaphore, due: float) -> SentPrompt:
        async with turn:
            client = self._idle.pop() if self._idle else Client()
            sent = await self._submit(client, due)
            self._idle.append(client)
            return sent

    async def _recovery(self) -> float | None:
        """Return the seconds until a single prompt is pushed quickly. None if that does not happen."""
        started = time.perf_counter()
        turn = asyncio.Semaphore(1)
        while time.perf_counter() < started + 4 * PATIENCE_SECONDS:
            sent = await self._submit_in_turn(turn, time.perf_counter())
            deadline = time.perf_counter() + RECOVERED_SECONDS
            while sent.is_accepted and not sent.pushed and time.perf_counter() < deadline:
                await asyncio.sleep(0.001)
            if sent.pushed and sent.pushed - sent.due < RECOVERED_SECONDS:
                return round(sent.pushed - started, 3)
            await asyncio.sleep(_BACK_OFF_SECONDS)
        return None

    async def _window(self, warm_up: float, seconds: float) -> tuple[float, float]:
        await asyncio.sleep(warm_up)
        self._on_edge("begin")
        started = time.perf_counter()
        await asyncio.sleep(seconds)
        self._on_edge("end")
        return started, time.perf_counter()

    async def _submit(self, client: Client, due: float | None = None) -> SentPrompt:
        number = len(self._prompts)
        user = number % self._active
        body = f'{{"prompt_text": "{_TEXT.format(number)}", "websocket": true}}'.encode()
        now = time.perf_counter()
        sent = SentPrompt(user, due or now, now)
        self._prompts.append(sent)
        try:
            if client.connection is None or not client.connection.is_open:
                client.connection = await Connection.open(self._host, self._port)
            sent.answer = await client.connection.request(self._heads[user] + body)
        except ClosedError:
            sent.failure = "closed"
        except OSError as error:
            sent.failure = type(error).__name__
        sent.answered = self._last_change = time.perf_counter()
        return sent

    def _head(self, path: str, token: str) -> bytes:
        length = len('{"prompt_text": "", "websocket": true}') + len(_TEXT.format(0))
        lines = (
            f"POST {path} HTTP/1.1",
            f"Host: {self._host}:{self._port}",
            f"Authorization: Bearer {token}",
            "Content-Type: application/json",
            f"Content-Length: {length}",
        )
        return "\r\n".join((*lines, "", "")).encode()

    def _on_message(self, user: int, message: bytes) -> None:
        if b'"response_text"' not in message:
            return
        event = json.loads(message)
        text = event.get("prompt_text")
        if text is None or event.get("response_text") is None:
            return
        number = int(text[:_DIGITS]) if text[:_DIGITS].isdigit() else -1
        if not 0 <= number < len(self._prompts):
            self._anomalies["unknown"] += 1
            return
        sent = self._prompts[number]
        if sent.user != user:
            self._anomalies["misdirected"] += 1
        elif sent.pushed:
            self._anomalies["repeated"] += 1
        else:
            sent.pushed = self._last_change = time.perf_counter()
            self._outstanding.release()

    async def _drain(self, first: int) -> None:
        """Wait for the pending prompts."""
        self._last_change = time.perf_counter()
        waiting = self._prompts[first:]
        while waiting and time.perf_counter() < self._last_change + PATIENCE_SECONDS:
            await asyncio.sleep(0.02)
            waiting = [sent for sent in waiting if sent.is_pending]

    def _figures(self, first: int, started: float, ended: float) -> dict[str, Any]:
        closed = sum(socket is None or not socket.is_open for socket in self._sockets)
        anomalies = {name: self._anomalies.pop(name, 0) for name in ("repeated", "misdirected", "unknown")}
        return figures(self._prompts[first:], started, ended) | anomalies | {"sockets_closed": closed}


def _schedule(rate: float, seconds: float, *, even: bool) -> Iterator[float]:
    started = due = time.perf_counter()
    while (due := due + (1 / rate if even else random.expovariate(rate))) < started + seconds:
        yield due


async def requests(
    url: str, *, path: str, connections: int, warm_up: float, seconds: float, on_edge: OnEdge
) -> dict[str, Any]:
    """Request a path repeatedly over `connections` connections: the baseline of every service on this server."""
    address = urlsplit(url)
    request = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
    taken: list[tuple[float, float]] = []

    async def request_repeatedly() -> None:
        connection = await Connection.open(address.hostname or "", address.port or 80)
        while True:
            started = time.perf_counter()
            answer = await connection.request(request)
            assert answer.status == 200, answer
            taken.append((started, time.perf_counter()))

    tasks: list[Awaitable[None]] = [asyncio.create_task(request_repeatedly()) for _ in range(connections)]
    await asyncio.sleep(warm_up)
    on_edge("begin")
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    on_edge("end")
    ended = time.perf_counter()
    for task in tasks:
        task.cancel()
    within = [(start, end) for start, end in taken if started <= end < ended]
    return {"seconds": ended - started, "answered": len(within), "ms": quantiles([e - s for s, e in within])}
