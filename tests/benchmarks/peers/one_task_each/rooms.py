"""Relays published events from Valkey to the sockets of this process by one subscription."""

import contextlib
import os
import threading
from collections import defaultdict
from collections.abc import Iterator

from redis import Redis
from simple_websocket import ConnectionClosed, Server


class Rooms:
    """The sockets by user. A client that does not read blocks the other sockets."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._sockets: defaultdict[int, set[Server]] = defaultdict(set)

    def start(self) -> None:
        threading.Thread(target=self._relay, daemon=True).start()

    @contextlib.contextmanager
    def join(self, user_id: int, socket: Server) -> Iterator[None]:
        """Send the user's published events to the socket."""
        self._sockets[user_id].add(socket)
        try:
            yield
        finally:
            self._sockets[user_id].discard(socket)

    def _relay(self) -> None:
        with self._redis.pubsub() as pubsub:
            pubsub.psubscribe(f"{os.environ['PEER_CHANNELS']}*")
            for message in pubsub.listen():
                if message["type"] == "pmessage":
                    user_id = int(message["channel"].rpartition(b":")[2])
                    self._send(user_id, message["data"].decode())

    def _send(self, user_id: int, text: str) -> None:
        for socket in list(self._sockets.get(user_id, ())):
            with contextlib.suppress(ConnectionClosed, OSError):  # the socket has just closed
                socket.send(text)
