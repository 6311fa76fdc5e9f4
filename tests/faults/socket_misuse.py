"""Sockets resume without a gap while pub/sub connections are cut and other sockets misbehave."""

import contextlib
import json
import random
import threading
from collections import Counter
from collections.abc import Callable

import redis
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.faults.cluster import Cluster
from tests.faults.load import LoadUser
from tests.faults.outcome import Outcome
from tests.faults.run import under_load
from tests.faults.scale import Scale
from tests.support.servers import MAX_WAIT_SECONDS

_SECONDS_BETWEEN_DROPS = 0.1
_DROPS_PER_RESTART = 10  # a restart of an API process, and so of its relay
#: Invalid client frames: no mask, reserved bits, a reserved opcode, a truncated length.
_MALFORMED_FRAMES = (b"\x81\x05hello", b"\xf1\x80\0\0\0\0", b"\x83\x80\0\0\0\0", b"\x89\xfe\xff\xff")
#: A frame marked as compressed, with the start of a compression bomb. Compression was not negotiated.
_BOMB = b"\xc1\x8a\0\0\0\0" + b"\xec\xc1\x01\x01\0\0\0\x80\x90\xfe"


def cut_connections(cluster: Cluster, scale: Scale) -> Outcome:
    """Drop every pub/sub connection in Redis, and restart relays, while sockets misbehave."""
    with under_load(cluster, "pub/sub cut, sockets misused", share_of_slow=0.02) as run:
        leave = threading.Event()
        misuses: Counter[str] = Counter()
        abusers = [
            threading.Thread(target=_misuse_sockets, args=[user, cluster, leave, misuses]) for user in run.users[:3]
        ]
        for abuser in abusers:
            abuser.start()
        with redis.Redis.from_url(cluster.servers.redis_url) as client:
            for i in range(1, scale.drops + 1):
                run.expect(lambda: client.client_kill_filter(_type="pubsub") > 0, 20, "a pub/sub connection to drop")
                run.outcome.faults += 1
                if i % _DROPS_PER_RESTART == 0:
                    for child in random.choice(cluster.apis).children():
                        child.terminate()
                    run.outcome.faults += 1
                run.pause(_SECONDS_BETWEEN_DROPS)
        leave.set()
        for abuser in abusers:
            abuser.join(MAX_WAIT_SECONDS)
        run.outcome.require(misuses["started"] > scale.drops / 10, f"only {misuses['started']} misuses")
        run.expect_consuming()
    return run.outcome


def _misuse_sockets(user: LoadUser, cluster: Cluster, leave: threading.Event, misuses: Counter[str]) -> None:
    """Misuse sockets, one after the other, in the rooms of users who also listen properly."""
    while not leave.wait(_SECONDS_BETWEEN_DROPS):
        misuse = random.choice(_MISUSES)
        url = random.choice(cluster.urls).replace("http", "ws", 1)
        path = f"{url}/ws/prompts/{user.username}/"
        with (
            contextlib.suppress(OSError, TimeoutError, WebSocketException),
            connect(path, additional_headers=user.headers, open_timeout=5, close_timeout=0.1) as room,
        ):
            misuses["started"] += 1
            misuse(room)


def _do_not_read(room: ClientConnection) -> None:
    for _ in range(200):
        room.send(json.dumps({"type": "x" * 60_000}))


def _flood(room: ClientConnection) -> None:
    for _ in range(2_000):
        room.send('{"type": "ping"}')


def _send_malformed(room: ClientConnection) -> None:
    room.socket.sendall(random.choice(_MALFORMED_FRAMES) + b"\0" * 100)


def _send_a_bomb(room: ClientConnection) -> None:
    room.socket.sendall(_BOMB)


def _send_oversized(room: ClientConnection) -> None:
    room.send("x" * 1_000_000)


def _disconnect(room: ClientConnection) -> None:
    room.socket.close()


_MISUSES: tuple[Callable[[ClientConnection], None], ...] = (
    _do_not_read,
    _flood,
    _send_malformed,
    _send_a_bomb,
    _send_oversized,
    _disconnect,
)
