"""How many connections a process and an address may have, on kernel socket pairs."""

import contextlib
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest
import structlog
from gunicorn.http.body import Body, LengthReader

from api.server.client_socket import ClientSocket
from api.server.connections import Connections
from api.server.listening_socket import DrainingServer
from tests.support.servers import MAX_WAIT_SECONDS


class Pairs:
    """Makes connections, which are closed at the end of the test."""

    def __init__(self, opened: contextlib.ExitStack) -> None:
        self._opened = opened

    def __call__(self) -> ClientSocket:
        """The server's end of a connection whose client sends nothing."""
        return self.both()[0]

    def both(self) -> tuple[ClientSocket, gevent.socket.socket]:
        """Both ends of a connection, the server's first."""
        ours, theirs = gevent.socket.socketpair()
        self._opened.enter_context(theirs)
        return self._opened.enter_context(ClientSocket(fileno=ours.detach())), theirs


@pytest.fixture
def connect() -> Iterator[Pairs]:
    with contextlib.ExitStack() as opened:
        yield Pairs(opened)


def make(**changes: Any) -> Connections:
    defaults = {"capacity": 100, "per_address": 2, "trusted_proxies": 0, "request_timeout": 30, "keepalive": 75}
    return Connections(**(defaults | changes))


class Request:
    """A gunicorn request without a body."""

    def __init__(self, **headers: str) -> None:
        self.headers = [(name.upper().replace("_", "-"), value) for name, value in headers.items()]
        self.body = Body(LengthReader(None, 0))


def is_closing(client: ClientSocket) -> bool:
    """Whether reading reports the end of the input at once."""
    client.become_websocket()  # so that `recv` has no time limits of its own
    client.settimeout(0)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def test_an_address_has_as_many_connections_as_the_limit(connect: Pairs) -> None:
    connections = make()
    clients = [connect() for _ in range(4)]
    assert [connections.open(client, "192.0.2.1") for client in clients[:3]] == [True, True, False]
    connections.close(clients[2])
    assert not connections.open(clients[2], "192.0.2.1")
    connections.close(clients[2])
    assert connections.open(clients[3], "192.0.2.2")
    connections.close(clients[0])
    assert connections.open(connect(), "192.0.2.1")


def test_an_ipv6_network_counts_as_one_address(connect: Pairs) -> None:
    connections = make()
    addresses = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"]
    assert [connections.open(connect(), address) for address in addresses] == [True, True, False, True]


@pytest.mark.parametrize(("per_address", "address"), [(2, "127.0.0.1"), (0, "192.0.2.1")])
def test_the_machine_itself_and_a_limit_of_zero_are_not_limited(connect: Pairs, per_address: int, address: str) -> None:
    connections = make(per_address=per_address)
    assert all(connections.open(connect(), address) for _ in range(5))


def test_behind_proxies_requests_count_for_the_client_that_the_trusted_proxy_saw(connect: Pairs) -> None:
    connections = make(trusted_proxies=2)
    clients = [connect() for _ in range(5)]
    assert all(connections.open(client, "10.0.0.1") for client in clients)
    forged = ["192.0.2.9, 192.0.2.1, 10.0.0.2", "192.0.2.8, 192.0.2.1:4000, 10.0.0.3", "192.0.2.1, 10.0.0.2"]
    accepted = [
        connections.begin_request(client, Request(x_forwarded_for=value))
        for client, value in zip(clients[:3], forged, strict=True)
    ]
    assert accepted == [True, True, False]
    assert connections.begin_request(clients[3], Request(x_forwarded_for="192.0.2.2, 10.0.0.2"))
    assert connections.begin_request(clients[4], Request(x_forwarded_for="192.0.2.1"))  # not from a client
    connections.await_next_request(clients[0], is_partial=False)
    assert connections.begin_request(clients[2], Request(x_forwarded_for="192.0.2.1, 10.0.0.2"))


def test_when_too_many_are_open_those_that_have_waited_longest_are_closed_first(connect: Pairs) -> None:
    connections = make(capacity=10)  # one less is comfortable
    clients = [connect() for _ in range(11)]
    for client in clients[:9]:
        connections.open(client, "127.0.0.1")
    connections.begin_request(clients[0], Request())
    connections.begin_request(clients[1], Request())
    connections.await_next_request(clients[1], is_partial=False)
    for client in clients[9:]:
        connections.open(client, "127.0.0.1")
    assert [is_closing(client) for client in clients] == [False, False, True, True] + 7 * [False]


def test_a_request_that_is_being_sent_when_its_connection_is_evicted_ends_without_an_error(connect: Pairs) -> None:
    connections = make(capacity=1)
    client = connect()
    connections.open(client, "127.0.0.1")
    reading = gevent.spawn(client.recv, 100)
    gevent.sleep(0)
    connections.open(connect(), "127.0.0.1")
    assert reading.get(timeout=MAX_WAIT_SECONDS) == b""


def test_refusals_are_logged_once_a_second(connect: Pairs) -> None:
    connections = make()
    with structlog.testing.capture_logs() as logged:
        for _ in range(100):
            connections.open(connect(), "192.0.2.1")
    assert len(logged) < 10
    assert logged[0]["address"] == "192.0.2.1/32"


def test_a_client_that_sends_nothing_within_the_timeout_is_disconnected(connect: Pairs) -> None:
    client = connect()
    client.await_request(30, 0.01)
    assert client.recv(100) == b""


def answer_a(data: bytes) -> bytes | None:
    return b"answer" if data == b"A" else None


def test_requests_that_are_answered_early_are_not_received(connect: Pairs) -> None:
    connections = make(answer=answer_a)
    client, peer = connect.both()
    connections.open(client, "127.0.0.1")
    reading = gevent.spawn(client.recv, 100)
    for _ in range(2):
        peer.sendall(b"A")
        assert peer.recv(100) == b"answer"
    assert client.is_idle
    peer.sendall(b"B")
    assert reading.get(timeout=MAX_WAIT_SECONDS) == b"B"
    assert not client.is_idle


@pytest.mark.parametrize("begin", ["the rest of a request", "the rest of the next request"])
def test_the_rest_of_a_request_is_never_answered_early(connect: Pairs, begin: str) -> None:
    connections = make(answer=answer_a)
    client, peer = connect.both()
    connections.open(client, "127.0.0.1")
    peer.sendall(b"B")
    assert client.recv(100) == b"B"
    if begin == "the rest of the next request":
        connections.await_next_request(client, is_partial=True)
    peer.sendall(b"A")
    assert client.recv(100) == b"A"


def test_connections_are_accepted_in_proportion_to_the_requests_on_open_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with gevent.socket.socket() as listening:
        server = DrainingServer(listening, lambda *_: None)
        server.max_accept = 100  # as gunicorn does
        accepted = []
        for new in (0, 1, 20, 0, 10_000):
            monkeypatch.setattr(ClientSocket, "requests_received", ClientSocket.requests_received + new)
            accepted.append(server.max_accept)
    assert accepted == [1, 1, 10, 1, 50]
