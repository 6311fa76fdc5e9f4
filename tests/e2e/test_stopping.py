"""What clients see when an API host stops."""

import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import httpx
import psutil
import pytest

from shared.settings import Settings
from tests.support import processes
from tests.support.servers import MAX_WAIT_SECONDS, wait_until

_REQUEST = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def _connect_and_ask(port: int) -> str:
    with socket.socket() as connection:
        connection.settimeout(MAX_WAIT_SECONDS)
        try:
            connection.connect(("127.0.0.1", port))
        except ConnectionRefusedError:
            return "refused"
        try:
            connection.sendall(_REQUEST)
            return connection.recv(100).partition(b"\r\n")[0].decode()
        except ConnectionResetError:
            return "reset"


def _have_processes_replaced(host: psutil.Process) -> None:
    old = set(host.children())
    for process in old:
        process.terminate()
    wait_until(lambda: old.isdisjoint(host.children()) and host.children(), what="gunicorn starting others")


@pytest.mark.parametrize("starting", [False, True], ids=["serving", "while its process is starting"])
def test_every_client_that_could_connect_gets_a_response(settings: Settings, starting: bool) -> None:
    """When the listening socket closes, the kernel resets connections that were not accepted."""
    seen: Counter[str] = Counter()
    port = processes.free_port()

    def ask_until_refused() -> None:
        # Once the process has ended, another one may listen on its port.
        while running.poll() is None and (answer := _connect_and_ask(port)) != "refused":
            seen[answer] += 1

    # On a busy machine a process may start for longer than gunicorn would wait for it.
    command = [*processes.API, "--graceful-timeout", str(MAX_WAIT_SECONDS)]
    with processes.process(command, settings, PORT=str(port), API_PROCESSES="2") as running:
        wait_until(lambda: processes.answers(f"http://127.0.0.1:{port}"), what="the API starting")
        asking = [threading.Thread(target=ask_until_refused) for _ in range(8)]
        for thread in asking:
            thread.start()
        wait_until(lambda: seen["HTTP/1.1 200 OK"] > 100)
        if starting:
            _have_processes_replaced(psutil.Process(running.pid))
        running.send_signal(signal.SIGTERM)
        for thread in asking:
            thread.join(MAX_WAIT_SECONDS)
    assert seen.keys() == {"HTTP/1.1 200 OK"}


def test_idle_keep_alive_connections_do_not_delay_the_stop(settings: Settings, tmp_path: Path) -> None:
    port = processes.free_port()
    url = f"http://127.0.0.1:{port}"
    with (tmp_path / "log").open("wb") as log:
        running = processes.start(processes.API, settings, output=log, PORT=str(port), API_PROCESSES="1")
    try:
        wait_until(lambda: processes.answers(url), what="the API starting")
        with (
            httpx.Client(base_url=url) as client,
            socket.create_connection(("127.0.0.1", port), timeout=MAX_WAIT_SECONDS) as fresh,
        ):
            client.get("/livez")
            running.send_signal(signal.SIGTERM)
            fresh.settimeout(MAX_WAIT_SECONDS)
            assert fresh.recv(1) == b""
            assert running.wait(timeout=MAX_WAIT_SECONDS) == 0
    finally:
        processes.kill(running)
    assert "graceful timeout" not in (tmp_path / "log").read_text()
