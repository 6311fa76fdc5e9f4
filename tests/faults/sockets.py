"""Sockets that resume, while the connections behind them are cut and other sockets misbehave."""

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
from tests.faults.load import Member
from tests.faults.outcome import Outcome
from tests.faults.run import under_load
from tests.faults.scale import Scale

_BETWEEN_SECONDS = 0.1
_DROPS_PER_RESTART = 10  # of a relay, which is an API process
#: What no client may send: no mask, reserved bits, a reserved opcode, a length that is cut off.
_MALFORMED = (b"\x81\x05hello", b"\xf1\x80\0\0\0\0", b"\x83\x80\0\0\0\0", b"\x89\xfe\xff\xff")
#: A frame that says it is compressed, and holds ten zero bytes out of a bomb. Compression was not agreed on.
_BOMB = b"\xc1\x8a\0\0\0\0" + b"\xec\xc1\x01\x01\0\0\0\x80\x90\xfe"


def cut_connections(cluster: Cluster, scale: Scale) -> Outcome:
    """Redis drops every pub/sub connection, and relays are restarted, while sockets misbehave."""
    with under_load(cluster, "pub/sub cut, sockets misused", share_of_slow=0.02) as run:
        leave = threading.Event()
        misuses: Counter[str] = Counter()
        abusers = [
            threading.Thread(target=_abuse, args=[member, cluster, leave, misuses]) for member in run.members[:3]
        ]
        for abuser in abusers:
            abuser.start()
        with redis.Redis.from_url(cluster.servers.redis_url) as client:
            for i in range(1, scale.drops + 1):
                run.expect(lambda: client.client_kill_filter(_type="pubsub") > 0, 20, "a connection to cut")
                run.outcome.faults += 1
                if i % _DROPS_PER_RESTART == 0:
                    for child in random.choice(cluster.apis).children():
                        child.terminate()
                    run.outcome.faults += 1
                run.pause(_BETWEEN_SECONDS)
        leave.set()
        for abuser in abusers:
            abuser.join()
        run.outcome.require(misuses["begun"] > scale.drops / 10, f"only {misuses['begun']} misuses")
        run.consuming_again()
    return run.outcome


def _abuse(member: Member, cluster: Cluster, leave: threading.Event, misuses: Counter[str]) -> None:
    """One misuse after the other, in the rooms of users who also listen as they should."""
    while not leave.wait(_BETWEEN_SECONDS):
        misuse = random.choice(_MISUSES)
        url = random.choice(cluster.urls).replace("http", "ws", 1)
        path = f"{url}/ws/prompts/{member.username}/"
        with (
            contextlib.suppress(OSError, TimeoutError, WebSocketException),
            connect(path, additional_headers=member.headers, open_timeout=5, close_timeout=0.1) as room,
        ):
            misuses["begun"] += 1
            misuse(room)


def _do_not_read(room: ClientConnection) -> None:
    for _ in range(200):
        room.send(json.dumps({"type": "x" * 60_000}))


def _flood(room: ClientConnection) -> None:
    for _ in range(2_000):
        room.send('{"type": "ping"}')


def _send_malformed(room: ClientConnection) -> None:
    room.socket.sendall(random.choice(_MALFORMED) + b"\0" * 100)


def _send_a_bomb(room: ClientConnection) -> None:
    room.socket.sendall(_BOMB)


def _send_too_much(room: ClientConnection) -> None:
    room.send("x" * 1_000_000)


def _vanish(room: ClientConnection) -> None:
    room.socket.close()


_MISUSES: tuple[Callable[[ClientConnection], None], ...] = (
    _do_not_read,
    _flood,
    _send_malformed,
    _send_a_bomb,
    _send_too_much,
    _vanish,
)
