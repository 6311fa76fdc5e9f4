"""Lends HTTP clients to threads, each with a connection of its own.

One `httpx.Client` would serve all threads, but whenever a request begins or ends, its pool goes through all connections
for each of them: with 200 streams that took more CPU than reading them (210 of 290 µs a chunk).
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from shared.providers.interruptible_transport import make_interruptible

KEEP_ALIVE_SECONDS = 30


class ClientPool:
    """Clients that are made as needed, and kept with their connections for KEEP_ALIVE_SECONDS.

    Args:
        options: Of each client. All share one TLS context, because making one takes 10 ms.
    """

    def __init__(self, **options: Any) -> None:
        limits = httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS)
        self._options: dict[str, Any] = {"verify": httpx.create_ssl_context(), "limits": limits} | options
        self._lock = threading.Lock()
        self._idle: deque[tuple[float, httpx.Client]] = deque()  # with the time of return, oldest first

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Lend a client: the one that was used last, because its connection is the most likely to be alive."""
        with self._lock:
            _, client = self._idle.pop() if self._idle else (0, None)
        client = client or make_interruptible(httpx.Client(**self._options))
        try:
            yield client
        finally:
            self._take_back(client)

    def close(self) -> None:
        """Close all clients that are not lent."""
        with self._lock:
            idle, self._idle = self._idle, deque()
        for _, client in idle:
            client.close()

    def _take_back(self, client: httpx.Client) -> None:
        now, expired = time.monotonic(), []
        with self._lock:
            self._idle.append((now, client))
            while self._idle[0][0] < now - KEEP_ALIVE_SECONDS:
                expired.append(self._idle.popleft()[1])
        for each in expired:
            each.close()
