"""Attacks of users who are logged in: large pages, expensive texts, many sockets, waiting requests and searches."""

import socket
import time
from functools import partial
from urllib.parse import quote

import redis

from shared.messaging.channels import Channels
from tests.faults.neighbours.attacker import Attacker, repeat, split
from tests.faults.neighbours.connection_attacks import handshake

_SENDERS = 8
#: NFKC takes a time that is quadratic in such a text, unless it is bounded. It is as long as a prompt may be.
_COMBINING_MARKS = "a" + "\u0345" * 50_000 + "\u0334" * 49_999
#: As much of it as a URL can carry.
_COMBINING_SEARCH = quote("a" + "\u0345" * 650 + "\u0334" * 650)
_IMPOSSIBLE = (
    b'{"seq": 1e30, "prompt_id": 1, "attempt": 1, "message": null}',
    b'{"seq": 1e30, "prompt_id": null, "attempt": 0, "message": null}',
    b'{"seq": 1e400, "prompt_id": null, "attempt": 0, "message": null}',
    b'{"seq": NaN, "prompt_id": 1, "attempt": 1, "message": "{}"}',
    b'{"seq": -1, "prompt_id": 1, "attempt": 1, "message": "{}"}',
    b'{"seq": "1", "prompt_id": "1", "attempt": "1", "message": 1}',
    b'{"seq": true, "prompt_id": [1], "attempt": {}, "message": "x"}',
    b'{"seq": null, "prompt_id": null}',
    b"[]",
    b"\xff",
)


def unread_pages(attacker: Attacker) -> None:
    """List large prompts on 30 connections, and do not read the responses."""
    user = attacker.users[0]
    submitters = [attacker.client(user) for _ in range(_SENDERS)]
    shares = split(attacker.size(100, 20), _SENDERS)
    text = "word " * 20_000
    attacker.together(*(partial(each.submit_all, text, n) for each, n in zip(submitters, shares, strict=True)))
    request = f"GET /prompts/?limit=100 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n\r\n"
    attacker.counts.clear()
    attacker.begin()
    for _ in range(30):
        connection = attacker.connect(receive_buffer=4096)
        connection.sendall(request.encode())
        attacker.counts["connections"] += 1
    attacker.wait()


def combining_marks(attacker: Attacker) -> None:
    """Submit and search for texts that are expensive to normalise."""
    client = attacker.client(attacker.users[0])
    attacker.begin()
    client.submit_all(_COMBINING_MARKS, attacker.size(10, 6))
    while not attacker.is_over:
        client.call("GET", f"/prompts/similar/?prompt={_COMBINING_SEARCH}")
        time.sleep(0.05)


def searches(attacker: Attacker) -> None:
    """Search with long texts, 32 at a time."""
    user = attacker.users[0]
    attacker.client(user).submit_all("What is a tide?", 20)
    attacker.counts.clear()
    path = "/prompts/similar/?prompt=" + "word" * 1_950
    clients = [attacker.client(user) for _ in range(32)]
    attacker.begin()
    attacker.together(*(partial(repeat, attacker, partial(client.call, "GET", path)) for client in clients))


def sockets(attacker: Attacker) -> None:
    """Join with as many sockets as possible, while an answer is streamed to all of them."""
    user = attacker.users[0]
    attacker.client(user).submit("slow 150")
    attacker.counts.clear()
    attacker.begin()
    crowd = attacker.crowd(handshake(user), attacker.size(9_000, 50))
    while not attacker.is_over:
        attacker.counts["kB received"] += sum(map(_received, crowd)) // 1000
        time.sleep(0.2)


def waiting_requests(attacker: Attacker) -> None:
    """Wait for one prompt with as many requests as possible, and then cancel it."""
    user = attacker.users[0]
    client = attacker.client(user)
    prompt_id = client.submit("slow 600")
    head = f"GET /prompts/{prompt_id}/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\nPrefer: wait=60\r\n"
    attacker.counts.clear()
    attacker.begin()
    crowd = attacker.crowd(f"{head}\r\n".encode(), attacker.size(10_000, 200))
    attacker.wait(0.7)
    client.call("POST", f"/prompts/{prompt_id}/cancel/")
    attacker.wait()
    attacker.count_statuses(crowd)


def impossible_announcements(attacker: Attacker) -> None:
    """Publish what no process of ours publishes, to the neighbour's and to the common channel."""
    with redis.Redis.from_url(attacker.target.redis_url) as client:
        channels = Channels(client)

        def publish() -> None:
            for data in _IMPOSSIBLE:
                client.publish(channels.of_user(attacker.target.neighbour_id), data)
                client.publish(channels.logins, data)
                attacker.counts["announcements"] += 2
            time.sleep(0.05)

        attacker.begin()
        repeat(attacker, publish)


def _received(connection: socket.socket) -> int:
    """Read what has arrived. Returns how many bytes that were."""
    try:
        return len(connection.recv(65536))
    except OSError:
        return 0
