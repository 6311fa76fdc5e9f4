"""The connections of a process: a limit for each address, and the eviction of idle ones when there are too many."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import structlog

from api.http.addresses import address_block, is_loopback
from api.server.client_socket import ClientSocket
from api.server.request_body import RequestBody

log = structlog.get_logger(__name__)

_LOG_INTERVAL_SECONDS = 1.0


class Connections:
    """The open connections of a process.

    Args:
        capacity: How many there may be.
        per_address: How many connections an address may have, or with trusted proxies how many requests and WebSockets;
            0 for any number. IPv6 addresses are counted by /64. Loopback addresses are not limited: they belong to the
            machine's operator, or to a local proxy that TRUSTED_PROXIES does not count.
        trusted_proxies: How many proxies add the address of their client to X-Forwarded-For.
        request_timeout: How many seconds a request may take to arrive, and a response to be read.
        keepalive: How many seconds a connection may be idle between requests.
        answer: The response to a request that needs no parsing, from its bytes; None for all others.
    """

    def __init__(
        self,
        *,
        capacity: int,
        per_address: int,
        trusted_proxies: int,
        request_timeout: float,
        keepalive: float,
        answer: Callable[[bytes], bytes | None] = lambda _: None,
    ) -> None:
        # A burst of accepted connections must fit in before the evicted ones have ended.
        self._eviction_threshold = capacity - min(200, capacity // 10)
        self._per_address = per_address
        self._trusted_proxies = trusted_proxies
        self._request_timeout = request_timeout
        self._keepalive = keepalive
        self._answer = answer
        self._open = 0
        #: Connections that have not sent their request completely, in the order in which they began to wait.
        self._waiting: dict[ClientSocket, float] = {}
        self._blocks: dict[ClientSocket, str] = {}
        self._counts: Counter[str] = Counter()
        self._refused = _RateLimitedWarning("connections refused: too many from one address")
        self._evicted = _RateLimitedWarning("connections closed: too many are open")

    def open(self, client: ClientSocket, address: str) -> bool:
        """Add a connection, which now waits for a request. Returns False if its address has too many."""
        self._open += 1
        if not (self._trusted_proxies or is_loopback(address) or self._count(client, address)):
            return False
        self._wait(client, self._request_timeout, may_answer=True)
        if self._open > self._eviction_threshold:
            self._evict()
        return True

    def close(self, client: ClientSocket) -> None:
        """Remove a connection."""
        self._open -= 1
        self._waiting.pop(client, None)
        self._release(client)

    def begin_request(self, client: ClientSocket, request: Any) -> bool:
        """Begin to handle a gunicorn request, whose head has arrived.

        Returns False if its client's address has too many.
        """
        client.begin_request()
        request.body = RequestBody(request.body.reader)
        if request.body.is_complete:
            self._waiting.pop(client, None)  # it may have been evicted
        if not self._trusted_proxies:
            return True
        address = _forwarded_address(request.headers, self._trusted_proxies)
        return address is None or self._count(client, address)

    def answer_early(self, client: ClientSocket, data: bytes) -> bytes | None:
        """Answer a request from its bytes if that is possible; then the connection waits for its next request."""
        answer = self._answer(data)
        if answer is not None:
            self._waiting.pop(client, None)
            self._wait(client, self._keepalive, may_answer=True)
        return answer

    def await_next_request(self, client: ClientSocket, *, is_partial: bool) -> None:
        """Keep the connection, and wait for its next request. `is_partial`: a part of that has arrived already."""
        if self._trusted_proxies:
            self._release(client)
        self._waiting.pop(client, None)
        client.yield_if_over()
        self._wait(client, self._keepalive, may_answer=not is_partial)

    def linger(self, client: ClientSocket) -> None:
        """See `ClientSocket.linger`. It can be evicted meanwhile."""
        self._waiting.setdefault(client, time.monotonic())
        client.linger()

    def close_idle(self, seconds: float) -> None:
        """Close the connections that have sent nothing of a request for this many seconds."""
        latest = time.monotonic() - seconds
        for client, since in list(self._waiting.items()):
            if since <= latest and client.is_idle:
                client.stop_reading()

    def _wait(self, client: ClientSocket, idle_timeout: float, *, may_answer: bool) -> None:
        client.await_request(self._request_timeout, idle_timeout, self if may_answer else None)
        self._waiting[client] = time.monotonic()

    def _evict(self) -> None:
        """Close the connection that has waited longest for a request, or for the rest of one."""
        client = next(iter(self._waiting), None)
        if client is not None:
            del self._waiting[client]
            client.stop_reading()
            self._evicted.add(open=self._open)

    def _count(self, client: ClientSocket, address: str) -> bool:
        block = address_block(address)
        if self._per_address and self._counts[block] >= self._per_address:
            self._refused.add(address=block)
            return False
        self._blocks[client] = block
        self._counts[block] += 1
        return True

    def _release(self, client: ClientSocket) -> None:
        block = self._blocks.pop(client, None)
        if block is not None:
            self._counts[block] -= 1
            if not self._counts[block]:
                del self._counts[block]


class _RateLimitedWarning:
    """A warning that is logged at most once a second, with the number of times that it occurred."""

    def __init__(self, event: str) -> None:
        self._event = event
        self._times = 0
        self._log_at = 0.0

    def add(self, **fields: object) -> None:
        self._times += 1
        if time.monotonic() >= self._log_at:
            log.warning(self._event, times=self._times, **fields)
            self._times, self._log_at = 0, time.monotonic() + _LOG_INTERVAL_SECONDS


def _forwarded_address(headers: Iterable[tuple[str, str]], hops: int) -> str | None:
    """The client's address as the outermost trusted proxy saw it; None if a proxy did not say, as in health checks."""
    values = [part.strip() for name, value in headers if name == "X-FORWARDED-FOR" for part in value.split(",")]
    return values[-hops] if len(values) >= hops else None
