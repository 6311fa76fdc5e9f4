"""The sending side of a WebSocket, on a kernel socket pair."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from simple_websocket import ConnectionClosed
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Pong, TextMessage

from api.realtime.frame_rate import FRAMES_PER_SECOND, MAX_EXCESS_SECONDS, FrameRateLimit
from api.realtime.frames import text_frame
from api.realtime.websocket import WebSocket
from tests.support.servers import MAX_WAIT_SECONDS, wait_until


@pytest.fixture
def pair() -> Iterator[tuple[WebSocket, socket.socket]]:
    """The server's WebSocket and the client's socket."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with ours, theirs:
        theirs.settimeout(10)
        made = WebSocket(ours)
        yield made, theirs
        theirs.close()
        made.run()


def read(theirs: socket.socket, count: int) -> list[str]:
    """Read this many messages."""
    connection, found, parts = Connection(ConnectionType.CLIENT), [], []
    while len(found) < count:
        connection.receive_data(theirs.recv(65536))
        for event in connection.events():
            parts.append(event.data)
            if event.message_finished:
                found.append("".join(parts))
                parts = []
    return found


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_text_frames_equal_those_of_wsproto(length: int) -> None:
    text = "ü" * (length // 2) + "x" * (length % 2)
    assert text_frame(text) == Connection(ConnectionType.SERVER).send(TextMessage(data=text))


def test_a_partially_sent_message_is_completed_before_the_next_message(pair) -> None:
    ours, theirs = pair
    long = "long " * 100_000
    assert ours.post(long)
    assert not ours.post("too early")
    sender = threading.Thread(target=ours.send, args=("waits",))
    sender.start()
    assert read(theirs, 2) == [long, "waits"]
    sender.join(MAX_WAIT_SECONDS)
    assert ours.post("again")
    assert read(theirs, 1) == ["again"]


def test_posting_fails_once_the_kernel_buffer_is_full(pair) -> None:
    ours, theirs = pair
    sent = 0
    while ours.post("x" * 1000):
        sent += 1
    theirs.recv(1 << 20)
    assert sent > 0


def test_nothing_is_sent_after_a_close(pair) -> None:
    ours, theirs = pair
    ours.close(1012, "bye")
    ours.close(1013)
    for send in (ours.send, ours.post):
        with pytest.raises(ConnectionClosed):
            send("x")
    connection = Connection(ConnectionType.CLIENT)
    connection.receive_data(theirs.recv(1000))
    (closed,) = connection.events()
    assert (type(closed), closed.code, closed.reason) == (CloseConnection, 1012, "bye")


def test_a_client_that_keeps_sending_too_much_is_closed_with_1008() -> None:
    class Listener:
        until = float("inf")

        def on_closed(self) -> None: ...

    frame_rate, now = FrameRateLimit(), time.monotonic() - MAX_EXCESS_SECONDS
    while frame_rate.charge(0, now) < 1:
        pass
    ours, theirs = socket.socketpair()
    with ours, theirs:
        made = WebSocket(ours, frame_rate)
        made.listen(Listener())
        client = Connection(ConnectionType.CLIENT)
        for _ in range(int(FRAMES_PER_SECOND * (MAX_EXCESS_SECONDS + 2))):
            frame_rate.charge(0, now)
        theirs.sendall(client.send(Pong()))
        theirs.shutdown(socket.SHUT_WR)
        made.run()
        client.receive_data(theirs.recv(1000))
        (closed,) = client.events()
        assert (type(closed), closed.code) == (CloseConnection, 1008)


def test_a_close_ends_the_reading_thread_of_a_silent_client(pair) -> None:
    class Listener:
        until = float("inf")
        gone = threading.Event()

        def on_closed(self) -> None:
            self.gone.set()

    ours, _ = pair
    ours.listen(Listener())
    reader = threading.Thread(target=ours.run)
    reader.start()
    ours.close()
    assert Listener.gone.wait(5)
    wait_until(lambda: not reader.is_alive(), seconds=5)
