"""What clients see of an API host that is told to stop."""

import signal
import socket
import threading
from collections import Counter

from shared.settings import Settings
from tests.support import processes
from tests.support.servers import wait_until

_REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def _connect_and_ask(port: int) -> str:
    with socket.socket() as connection:
        connection.settimeout(10)
        try:
            connection.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return "refused"
        try:
            connection.sendall(_REQUEST)
            return connection.recv(100).partition(b"\r\n")[0].decode()
        except ConnectionResetError:
            return "reset"


def test_whoever_could_connect_is_answered(settings: Settings) -> None:
    """The kernel resets what has connected and is not accepted when the listening socket closes."""
    seen: Counter[str] = Counter()
    port = processes.free_port()

    def ask_until_refused() -> None:
        while (answer := _connect_and_ask(port)) != "refused":
            seen[answer] += 1

    with processes.process(processes.API, settings, PORT=str(port), API_PROCESSES="2") as running:
        wait_until(lambda: processes.answers(f"http://127.0.0.1:{port}"), what="the API starting")
        asking = [threading.Thread(target=ask_until_refused) for _ in range(8)]
        for thread in asking:
            thread.start()
        wait_until(lambda: seen["HTTP/1.1 200 OK"] > 100)
        running.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join()
    assert seen.keys() == {"HTTP/1.1 200 OK"}
