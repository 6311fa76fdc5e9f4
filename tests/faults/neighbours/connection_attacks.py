"""Attacks with connections, most of them not logged in: floods, and connections that are held."""

import json
import resource
import socket
import time
from functools import partial
from itertools import cycle

from tests.faults.neighbours.attacker import MEGABYTE, Attacker, repeat
from tests.support.people import Person

_JSON_POST = b"POST /login/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
_UNKNOWN_PAGE = b"POST /nothing HTTP/1.1\r\nHost: x\r\n"
_ENDLESS = b"Content-Length: 99999999999\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
_CHUNK = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
_MALFORMED_CHUNKS = (
    b"ZZ\r\n{}\r\n0\r\n\r\n",
    b"-1\r\n{}\r\n0\r\n\r\n",
    b"0x5\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}\r\n0\r\nnot a trailer\r\n\r\n",
)
#: File descriptors of a process that are not the attack's, or not connections.
_OTHER_DESCRIPTORS = 600
#: More than a minute allows. So many are made even if that takes longer than the attack.
_GUESSES = 12
_BLANK, _PING, _PONG, _TEXT, _CONTINUATION = b"\x81\x81\0\0\0\0 ", b"\x89\x80\0\0\0\0", b"\x8a\x80\0\0\0\0", 1, 0
_FIRST_FRAGMENT, _EMPTY_FRAGMENT = b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0"
#: Without spaces, because the console format quotes and escapes text with spaces anyway.
FORGERY = "[critical]forged"
_SEPARATORS = ("%0a", "%0d", "%0b", "%0c", "%1c", "%1d", "%1e", "%c2%85", "%e2%80%a8", "%e2%80%a9")
_TERMINAL_SEQUENCES = ("%1b[2J", "%1b[1A", "%c2%9b2J", "%e2%80%ae")


def blank_messages(attacker: Attacker) -> None:
    _flood_socket(attacker, _BLANK)


def pongs(attacker: Attacker) -> None:
    _flood_socket(attacker, _PONG)


def pings(attacker: Attacker) -> None:
    _flood_socket(attacker, _PING)


def empty_fragments(attacker: Attacker) -> None:
    """Begin a message, and never end it."""

    def begin_message() -> socket.socket:
        connection = join(attacker, attacker.users[0])
        connection.sendall(_FIRST_FRAGMENT)
        return connection

    attacker.begin()
    attacker.flood(begin_message, _EMPTY_FRAGMENT * 1000)


def _flood_socket(attacker: Attacker, frame: bytes) -> None:
    attacker.begin()
    attacker.flood(lambda: join(attacker, attacker.users[0]), frame * 1000)


def join(attacker: Attacker, user: Person) -> socket.socket:
    """Join this user's room."""
    connection = attacker.connect()
    connection.sendall(handshake(user))
    received = b""
    while b"\r\n\r\n" not in received and (data := connection.recv(4096)):
        received += data
    return connection


def handshake(user: Person) -> bytes:
    return (
        f"GET /ws/prompts/{user.username}/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {user.token}\r\n"
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    ).encode()


def pipelined_requests(attacker: Attacker) -> None:
    """Send requests without waiting for responses, not logged in."""
    attacker.begin()
    attacker.flood(attacker.connect, b"GET /prompts/ HTTP/1.1\r\nHost: x\r\n\r\n" * 100, rate=0.15 * MEGABYTE)


def endless_bodies(attacker: Attacker) -> None:
    """Go on with bodies after the responses 404 and 413, with a length and in chunks."""

    def start(head: bytes) -> socket.socket:
        connection = attacker.connect()
        connection.sendall(head)
        return connection

    bodies = {
        _UNKNOWN_PAGE + _ENDLESS: b"x" * 4096,
        _JSON_POST + _ENDLESS: b"x" * 4096,
        _UNKNOWN_PAGE + _CHUNKED: _CHUNK,
        _JSON_POST + _CHUNKED: _CHUNK,
    }
    attacker.begin()
    rate = MEGABYTE / len(bodies)
    attacker.together(
        *(partial(attacker.flood, partial(start, head), body, rate=rate) for head, body in bodies.items())
    )


def unknown_keys(attacker: Attacker) -> None:
    """Log in with 60,000 unknown keys."""
    body = json.dumps({f"k{i}": 0 for i in range(60_000)}).encode()
    request = _JSON_POST + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    attacker.begin()
    attacker.flood(attacker.connect, request)


def malformed_chunks(attacker: Attacker) -> None:
    """Break the chunked encoding in several ways, each of which must be answered with 400."""
    bodies = cycle(_MALFORMED_CHUNKS)

    def send() -> None:
        body = next(bodies)
        with attacker.connect() as connection:
            connection.sendall(_JSON_POST + _CHUNKED + body)
            status = connection.recv(65536)[9:12].decode()
        attacker.counts[status] += 1
        if status != "400":
            attacker.breaches.append(f"{body!r} was answered {status}")
        time.sleep(0.01)

    attacker.begin()
    repeat(attacker, send)


def missing_bodies(attacker: Attacker) -> None:
    """Announce bodies that never come."""
    attacker.begin()
    attacker.crowd(_JSON_POST + b"Content-Length: 100\r\n\r\n", attacker.size(2_000, 100))
    attacker.wait()


def half_sent_requests(attacker: Attacker) -> None:
    """Open as many connections as there may be, and send half a request on each."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1] - _OTHER_DESCRIPTORS
    attacker.begin()
    attacker.crowd(b"GET /livez HTTP/1.1\r\nHost: x\r\n", min(most, attacker.size(20_000, 500)))
    attacker.wait()


def forged_log_lines(attacker: Attacker) -> None:
    """Put line separators and terminal sequences into paths."""
    paths = [f"/x{each}{FORGERY}" for each in (*_SEPARATORS, *_TERMINAL_SEQUENCES)]
    client = attacker.client()
    attacker.begin()
    for path in cycle(paths):
        client.call("GET", path)
        time.sleep(0.01)
        if attacker.is_over:
            return


def wrong_passwords(attacker: Attacker) -> None:
    """Guess the neighbour's password from an IPv4 block, and from the addresses of an IPv6 /64."""

    def guess(addresses: list[str]) -> None:
        client = attacker.client()
        for number, address in enumerate(addresses):
            if number >= _GUESSES and attacker.is_over:
                return
            body = {"username": attacker.target.neighbour, "password": "not the password"}
            client.call("POST", "/login/", body, **{"X-Forwarded-For": address})

    attacker.begin()
    attacker.together(
        partial(guess, [f"198.51.100.{i % 250}" for i in range(100_000)]),
        partial(guess, [f"2001:db8::{i:x}" for i in range(130)]),
    )
    attacker.wait()
