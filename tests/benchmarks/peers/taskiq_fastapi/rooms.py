"""Relays published events from Redis to the sockets of this process by one subscription."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator

from fastapi import WebSocket, WebSocketDisconnect
from redis.asyncio import Redis

from tests.benchmarks.peers.taskiq_fastapi.tasks import CHANNEL_PREFIX


class Rooms:
    """The sockets by user. A client that does not read blocks the other sockets."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sockets: defaultdict[int, set[WebSocket]] = defaultdict(set)

    @contextlib.contextmanager
    def join(self, user_id: int, socket: WebSocket) -> Iterator[None]:
        """Send the user's published events to the socket."""
        self._sockets[user_id].add(socket)
        try:
            yield
        finally:
            self._sockets[user_id].discard(socket)

    async def relay(self) -> None:
        """Relay published events forever."""
        async with self._redis.pubsub() as pubsub:
            await pubsub.psubscribe(f"{CHANNEL_PREFIX}*")
            async for message in pubsub.listen():
                if message["type"] == "pmessage":
                    user_id = int(message["channel"].rpartition(b":")[2])
                    await self._send(user_id, message["data"].decode())

    async def _send(self, user_id: int, text: str) -> None:
        for socket in list(self._sockets.get(user_id, ())):
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # the socket has just closed
                await socket.send_text(text)
