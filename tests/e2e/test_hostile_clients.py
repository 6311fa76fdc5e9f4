"""A hostile client neither blocks the event loop nor holds a connection for ever."""

import contextlib
import json
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from shared.settings import Settings
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS, Servers, wait_until

REQUEST_TIMEOUT = 2
CONNECTION_LIMIT = 3
BACKLOG_LIMIT = 30
_CHUNKED_POST = (
    b"POST /login/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)


@pytest.fixture(scope="module")
def settings(servers: Servers, own_settings: Settings) -> Settings:
    return servers.changed(
        own_settings,
        request_timeout_seconds=REQUEST_TIMEOUT,
        trusted_proxies=1,
        connection_limit_per_address=CONNECTION_LIMIT,
        backlog_limit=BACKLOG_LIMIT,
    )


@pytest.fixture(scope="module")
def alice(url: str) -> RemoteUser:
    return RemoteUser(url)


@pytest.fixture
def connect(url: str) -> Iterator[Callable[[], socket.socket]]:
    host, port = url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(socket.create_connection((host, int(port)), MAX_WAIT_SECONDS))


def head_of(response: bytes) -> str:
    return response.partition(b"\r\n\r\n")[0].decode()


def read_all(connection: socket.socket) -> bytes:
    """Read until the server ends its output."""
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


def status_of(response: bytes) -> int:
    return int(response.split(maxsplit=2)[1]) if response else 0


@contextlib.contextmanager
def flooding(connection: socket.socket, data: bytes) -> Iterator[threading.Thread]:
    """Send `data` again and again, as fast as it is taken, and discard what comes back."""
    ended = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                connection.sendall(data)

    def discard() -> None:
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass

    threads = [threading.Thread(target=send), threading.Thread(target=discard)]
    for thread in threads:
        thread.start()
    try:
        yield threads[0]
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(MAX_WAIT_SECONDS)


def frame(opcode: int, payload: bytes = b"", *, is_final: bool = True) -> bytes:
    return bytes([0x80 * is_final | opcode, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


class TestTheEventLoop:
    def test_a_client_that_pipelines_requests_delays_no_other_client(self, alice: RemoteUser, connect) -> None:
        prompt_id = alice.submit()
        with flooding(connect(), b"GET /prompts/ HTTP/1.1\r\nHost: x\r\n\r\n" * 200) as attacker:
            for _ in range(10):
                assert alice.show(prompt_id)["status"] == "queued"
            assert attacker.is_alive()

    @pytest.mark.parametrize(
        "sent", [frame(1, b" "), frame(10), frame(9, b"x")], ids=["blank messages", "pongs", "pings"]
    )
    def test_a_socket_that_floods_delays_no_other_client(self, alice: RemoteUser, sent: bytes) -> None:
        prompt_id = alice.submit()
        with alice.join() as room:
            room.receive()
            raw = room.connection.socket
            with flooding(raw, sent * 1000) as attacker:
                for _ in range(10):
                    assert alice.show(prompt_id)["status"] == "queued"
                assert attacker.is_alive()

    def test_endless_empty_fragments_close_the_socket_with_1009(self, alice: RemoteUser) -> None:
        with alice.join() as room:
            room.receive()
            raw = room.connection.socket
            with contextlib.suppress(OSError):
                raw.sendall(frame(1, is_final=False) + frame(0, is_final=False) * 1000)
            assert room.close_code() == 1009


class TestUnreadBodies:
    def test_an_endless_body_is_answered_and_its_connection_ends(self, connect) -> None:
        endless = b"Content-Length: 99999999999\r\n\r\n"
        json_post = _CHUNKED_POST.partition(b"Transfer-Encoding")[0]
        refused = {
            b"POST /nothing HTTP/1.1\r\nHost: x\r\n" + endless: (404, b"x" * 1000),
            json_post + endless: (413, b"x" * 1000),
            b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n": (404, b"1\r\nx\r\n" * 1000),
            _CHUNKED_POST: (413, b"1000\r\n" + b"x" * 0x1000 + b"\r\n"),
        }
        with contextlib.ExitStack() as attacks:
            senders = []
            for head, (status, body) in refused.items():
                connection = connect()
                connection.sendall(head + body * (300 if status == 413 else 1))
                response = connection.recv(65536)
                assert status_of(response) == status
                assert "Connection: close" in head_of(response)
                senders.append(attacks.enter_context(flooding(connection, body)))
            for sender in senders:
                sender.join(MAX_WAIT_SECONDS)
                assert not sender.is_alive()

    def test_a_client_that_is_still_sending_can_read_the_response(self, connect) -> None:
        connection = connect()
        length = 20_000_000
        connection.sendall(f"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
        connection.sendall(b"x" * length)
        assert status_of(read_all(connection)) == 404

    def test_a_small_unread_body_does_not_end_the_connection(self, connect) -> None:
        connection = connect()
        for _ in range(2):
            connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
            response = connection.recv(65536)
            assert status_of(response) == 404
            assert "Connection: keep-alive" in head_of(response)
            connection.sendall(b"x" * 1000)

    @pytest.mark.parametrize(
        "body",
        [b"ZZ\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n0\r\n\r\n", b"0x2\r\n{}\r\n0\r\n\r\n", b"2\r\n{}XX0\r\n\r\n",
         b"2;\r\n\x01\r\n", b"2\r\n{}\r\n0\r\nnot a trailer\r\n\r\n"],
        ids=["no number", "negative", "prefixed", "no line end", "extension", "trailer"],
    )  # fmt: skip
    def test_malformed_chunks_get_400(self, connect, body: bytes) -> None:
        connection = connect()
        connection.sendall(_CHUNKED_POST + body)
        response = read_all(connection)
        assert status_of(response) == 400
        assert "Content-Type: application/problem+json" in head_of(response)
        assert json.loads(response.partition(b"\r\n\r\n")[2])["status"] == 400

    def test_a_chunked_body_that_is_cut_off_gets_400(self, connect) -> None:
        connection = connect()
        connection.sendall(_CHUNKED_POST + b"5\r\n{")
        connection.shutdown(socket.SHUT_WR)
        assert status_of(read_all(connection)) == 400


class TestTimeLimits:
    def test_a_request_must_arrive_in_time(self, connect) -> None:
        sent = {
            b"": 0,
            b"GET /livez HTTP/1.1\r\nHost: x\r\n": 408,
            b"POST /login/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{": 408,
            _CHUNKED_POST + b"5\r\n{": 408,
        }
        connections = [connect() for _ in sent]
        for connection, data in zip(connections, sent, strict=True):
            connection.sendall(data)
        responses = [read_all(connection) for connection in connections]
        assert [status_of(response) for response in responses] == list(sent.values())
        for response in filter(None, responses):
            assert "Content-Type: application/problem+json" in head_of(response)
            assert "Connection: close" in head_of(response)

    @pytest.mark.parametrize(
        "start",
        [b"GET /ws/prompts/alice/ HTTP/1.1\r\nUpgrade: websocket\r\nX-Padding: ", _CHUNKED_POST + b"1000\r\n"],
        ids=["head of a handshake", "body"],
    )
    def test_a_request_that_arrives_byte_by_byte_must_arrive_in_time(self, connect, start: bytes) -> None:
        connection = connect()
        connection.sendall(start)
        with contextlib.suppress(OSError):
            while not select.select([connection], [], [], REQUEST_TIMEOUT / 20)[0]:
                connection.sendall(b"x")
        assert status_of(connection.recv(65536)) == 408

    def test_a_response_must_be_read_in_time(self, connect) -> None:
        connection = connect()
        connection.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            while True:  # until the server, which cannot send, reads no more
                connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        closed = select.poll()
        closed.register(connection, select.POLLHUP)
        assert closed.poll(MAX_WAIT_SECONDS * 1000)

    def test_sockets_streams_and_waiting_requests_may_last_longer(self, alice: RemoteUser, url: str) -> None:
        prompt_id = alice.submit()
        headers = {"Authorization": alice.http.headers["Authorization"]}
        with (
            alice.join() as room,
            httpx.stream(
                "GET", f"{url}/prompts/{prompt_id}/stream/", headers=headers, timeout=MAX_WAIT_SECONDS
            ) as text,
        ):
            room.receive()
            started = time.monotonic()
            waited = alice.http.get(f"/prompts/{prompt_id}/", headers={"Prefer": f"wait={2 * REQUEST_TIMEOUT}"})
            assert time.monotonic() - started >= 2 * REQUEST_TIMEOUT
            assert waited.json()["status"] == "queued"
            alice.http.post(f"/prompts/{prompt_id}/cancel/").raise_for_status()
            assert room.receive()["type"] == "prompt.cancelled"
            assert "event: prompt.cancelled" in "".join(text.iter_text())


class TestConnectionsOfAnAddress:
    def test_connections_over_the_limit_are_refused_until_one_ends(self, alice: RemoteUser) -> None:
        def join_from(address: str):
            headers = {"Authorization": alice.http.headers["Authorization"], "X-Forwarded-For": f"10.0.0.1, {address}"}
            return alice.join(additional_headers=headers)

        def is_admitted() -> bool:
            with contextlib.suppress(InvalidStatus):
                rooms.enter_context(join_from("2001:db8::9"))
                return True
            return False

        with contextlib.ExitStack() as rooms:
            first = [rooms.enter_context(join_from(f"2001:db8::{i}")) for i in range(CONNECTION_LIMIT)]
            with pytest.raises(InvalidStatus) as refused:
                join_from("2001:db8::5")
            assert refused.value.response.status_code == 429
            assert refused.value.response.headers["Content-Type"] == "application/problem+json"
            assert refused.value.response.headers["Retry-After"] == "1"
            rooms.enter_context(join_from("2001:db8:0:1::1"))
            assert alice.http.get("/livez", headers={"X-Forwarded-For": "2001:db8::7"}).status_code == 429
            first[0].connection.close()
            wait_until(is_admitted)

    def test_requests_of_an_address_one_after_the_other_are_not_limited(self, url: str) -> None:
        with httpx.Client(base_url=url, headers={"X-Forwarded-For": "203.0.113.7"}) as client:
            assert {client.get("/livez").status_code for _ in range(3 * CONNECTION_LIMIT)} == {200}


class TestRefusalsOfAnOverloadedProcess:
    """They come before a request is parsed, so its bytes must be exactly one request."""

    SUBMISSION = b"POST /prompts/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"

    @pytest.fixture(autouse=True)
    def overload(self, alice: RemoteUser) -> Iterator[None]:
        submitted = []
        while (response := alice.http.post("/prompts/", json={"prompt_text": "Why?"})).status_code == 202:
            submitted.append(response.json()["id"])
        assert response.status_code == 503
        yield
        for prompt_id in submitted:
            alice.http.post(f"/prompts/{prompt_id}/cancel/")
        wait_until(lambda: alice.http.post("/prompts/", json={"prompt_text": "Why?"}).status_code == 202)

    def test_a_connection_gets_one_for_each_submission_and_the_answers_to_its_other_requests(self, connect) -> None:
        connection = connect()
        statuses = []
        for sent in (self.SUBMISSION, self.SUBMISSION, b"GET /livez/ HTTP/1.1\r\nHost: x\r\n\r\n", self.SUBMISSION):
            connection.sendall(sent)
            statuses.append(status_of(connection.recv(65536)))
        assert statuses == [503, 503, 200, 503]

    def test_the_rest_of_a_pipelined_request_is_not_taken_for_a_submission(self, connect) -> None:
        connection, line = connect(), b"GET /livez/ HTTP/1.1\r\n"
        connection.sendall(line + b"Host: x\r\n\r\n" + line + b"X-Note: ")
        received = connection.recv(65536)
        connection.sendall(self.SUBMISSION)  # the rest of the head, and a body
        received += connection.recv(65536)
        connection.sendall(line + b"Host: x\r\nConnection: close\r\n\r\n")
        received += read_all(connection)
        assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200"] * 3
