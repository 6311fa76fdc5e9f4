"""The load generator's own HTTP and WebSocket clients, and its statistics."""

import asyncio
from collections.abc import Iterator

from wsproto import ConnectionType
from wsproto.connection import Connection as Server
from wsproto.events import Ping, Pong, TextMessage

from tests.benchmarks.end_to_end.sent_prompts import SentPrompt, figures
from tests.benchmarks.end_to_end.wire import Answer, Connection, Socket


class Transport:
    """A transport that records what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def split(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


def test_a_socket_reads_frames_split_at_any_byte() -> None:
    texts = ["a", "b" * 125, "c" * 126, "d" * 65_535, "e" * 65_536, "“ü”"]

    async def receive(size: int) -> list[bytes]:
        found: list[bytes] = []
        socket = Socket(b"GET", found.append)
        socket.connection_made(Transport())
        server = Server(ConnectionType.SERVER)
        frames = [server.send(TextMessage("hello")), *(server.send(TextMessage(text)) for text in texts)]
        frames += [server.send(TextMessage("in ", message_finished=False)), server.send(TextMessage("two"))]
        for piece in split(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + b"".join(frames), size):
            socket.data_received(piece)
        assert socket.greeted.done()
        return found

    expected = [text.encode() for text in (*texts, "in two")]
    assert all(asyncio.run(receive(size)) == expected for size in (1, 2, 1_000, 1_000_000))


def test_a_socket_answers_pings_and_keeps_the_close_code() -> None:
    async def talk() -> tuple[list[object], int | None]:
        transport = Transport()
        socket = Socket(b"", print)
        socket.connection_made(transport)
        server = Server(ConnectionType.SERVER)
        socket.data_received(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + server.send(Ping(b"you?")))
        server.receive_data(transport.written)
        answered = list(server.events())
        socket.data_received(b"\x88\x02" + (1013).to_bytes(2, "big"))
        assert transport.closed
        return answered, socket.close_code

    assert asyncio.run(talk()) == ([Pong(b"you?")], 1013)


def test_a_connection_reads_consecutive_responses() -> None:
    answers = [
        b"HTTP/1.1 202 ACCEPTED\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 503 SERVICE UNAVAILABLE\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
    ]

    async def read() -> list[Answer]:
        connection = Connection()
        connection.connection_made(Transport())
        found = []
        for answer in answers:
            waiting = connection.request(b"GET")
            for piece in split(answer, 7):
                connection.data_received(piece)
            found.append(await waiting)
        return found

    assert asyncio.run(read()) == [Answer(202, False), Answer(503, True)]


def test_latencies_are_measured_from_the_time_at_which_a_prompt_was_due() -> None:
    late = SentPrompt(user=0, due=10.0, started=12.0, answer=Answer(202, False), answered=12.5, pushed=13.0)
    lost = SentPrompt(user=0, due=10.5, started=10.5, answer=Answer(202, False), answered=10.6)
    refused = SentPrompt(user=0, due=10.7, started=10.7, answer=Answer(503, False), answered=10.8)
    found = figures([late, lost, refused], 10, 20)
    assert found["push_ms"]["p50"] == 3_000
    assert found["late_ms"]["max"] == 2_000
    assert (found["accepted"], found["lost"], found["503_without_retry_after"]) == (2, 1, 1)
    assert found["answers"] == {"202": 2, "503": 1}
