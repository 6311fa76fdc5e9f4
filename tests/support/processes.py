"""API and worker processes on the tests' servers, and a user who talks to them over HTTP and WebSocket."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from infra.local.data_folder import is_free
from shared.settings import Settings
from tests.support import watchdog
from tests.support.client import PASSWORD
from tests.support.servers import MAX_WAIT_SECONDS, ROOT, environment_of, wait_until

API = ["gunicorn", "-c", "infra/gunicorn.conf.py", "api.wsgi:app"]
WORKER_ENVIRONMENT = {"REMAP_SIGTERM": "SIGQUIT"}

_TEMPORARY = (502, 503, 504)

# Below the ports of the servers and of outgoing connections.
_PORTS = range(16_000, 21_000)
_taken: list[socket.socket] = []


def free_port() -> int:
    """A port of this machine on which nothing listens, and which no other test process is given while this one runs.

    Other processes see by a UDP socket of the same number that it is taken, also before a server listens there.
    """
    while not (is_free("127.0.0.1", port := random.choice(_PORTS)) and _take(port)):
        pass
    return port


def _take(port: int) -> bool:
    sign = socket.socket(type=socket.SOCK_DGRAM)
    try:
        sign.bind(("127.0.0.1", port))
    except OSError:
        sign.close()
        return False
    _taken.append(sign)
    return True


@contextlib.contextmanager
def process(command: list[str], settings: Settings, **environment: str) -> Iterator[subprocess.Popen]:
    """Run a Python module in a session of its own. At the end it gets SIGTERM and must stop."""
    running = start(command, settings, **environment)
    try:
        yield running
        running.send_signal(signal.SIGTERM)
        running.wait(timeout=MAX_WAIT_SECONDS)
    finally:
        kill(running)


def start(
    command: list[str], settings: Settings, *, output: IO[bytes] | None = None, **environment: str
) -> subprocess.Popen:
    """Start a Python module as a process, in a session of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env=os.environ | environment_of(settings) | environment,
        cwd=ROOT,
        start_new_session=True,
        stdout=output,
        stderr=output,
    )
    watchdog.watch(process.pid)
    return process


def kill(running: subprocess.Popen) -> None:
    """Kill the process and its children, as kill -9 does."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait(MAX_WAIT_SECONDS)


@contextlib.contextmanager
def api(settings: Settings, *, processes: int = 1, port: int | None = None) -> Iterator[str]:
    """The API under gunicorn, as in a deployment. Yields its URL."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    with process(API, settings, PORT=str(port), API_PROCESSES=str(processes)):
        wait_until(lambda: answers(url), what="the API starting")
        yield url


class RestartableApi:
    """An API that can be ended and started again at the same address. It runs from the beginning."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._port = settings, free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        self._running = start(API, self._settings, PORT=str(self._port), API_PROCESSES="1")
        wait_until(lambda: answers(self.url), what="the API starting")

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        if number == signal.SIGTERM:
            self._running.send_signal(number)
            self._running.wait(MAX_WAIT_SECONDS)
        kill(self._running)

    @contextlib.contextmanager
    def down(self, number: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """End the API with this signal, and start it again after the block."""
        self.end(number)
        try:
            yield
        finally:
            self.start()


@contextlib.contextmanager
def worker(settings: Settings, *, processes: int = 2, name: str = "worker") -> Iterator[subprocess.Popen]:
    """A Celery worker. It may still be starting."""
    with process(worker_command(name, processes), settings, **WORKER_ENVIRONMENT) as running:
        yield running


def worker_command(name: str, processes: int | None) -> list[str]:
    """The command of a worker host. Without a number of processes, its settings choose the pool and its size."""
    command = ["celery", "-A", "worker.app", "worker", "--hostname", f"{name}@test"]
    size = [] if processes is None else [f"--concurrency={processes}"]
    return [*command, *size, "--without-mingle", "--without-gossip"]


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


class RemoteUser:
    """A user who is logged in over HTTP, and registered first if `is_new`."""

    def __init__(self, url: str, username: str | None = None, *, is_new: bool = True) -> None:
        self.url = url
        self.username = username or f"user-{uuid4().hex[:8]}"
        # Connections are not kept, so there is nothing to close.
        limits = httpx.Limits(max_keepalive_connections=0)
        self.http = httpx.Client(base_url=url, timeout=MAX_WAIT_SECONDS, limits=limits)
        body = {"username": self.username, "password": PASSWORD}
        if is_new:
            self._send("POST", "/auth/register/", json=body)
        self.tokens = self._send("POST", "/login/", json=body).json()
        self.http.headers["Authorization"] = f"Bearer {self.tokens['access']}"

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request, and again after a temporary error: the server or a server behind it was too slow."""
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while (response := self.http.request(method, path, **options)).status_code in _TEMPORARY:
            if time.monotonic() > deadline:
                break
            time.sleep(float(response.headers.get("Retry-After", 0.5)))
        return response.raise_for_status()

    def submit(self, text: str = "What is a tide?", **fields: object) -> int:
        body = {"prompt_text": text, "websocket": True} | fields
        return self._send("POST", "/prompts/", json=body).json()["id"]

    def show(self, prompt_id: int) -> dict[str, Any]:
        return self._send("GET", f"/prompts/{prompt_id}/").json()

    def wait(self, prompt_id: int) -> dict[str, Any]:
        """Wait until the prompt has finished, and return it."""
        return self._send("GET", f"/prompts/{prompt_id}/", headers={"Prefer": "wait=60"}).json()

    def join(
        self, *, since: int | None = None, everything: object = None, path: str | None = None, **options: Any
    ) -> "Socket":
        """Join this user's room."""
        path = f"/ws/prompts/{self.username}/" if path is None else path
        given = {"since": since, "all": everything}
        query = "?" + urlencode({name: value for name, value in given.items() if value is not None})
        options.setdefault("additional_headers", {"Authorization": self.http.headers["Authorization"]})
        options = {"open_timeout": MAX_WAIT_SECONDS, "ping_timeout": MAX_WAIT_SECONDS} | options
        return Socket(connect(self.url.replace("http", "ws", 1) + path + query, **options))


class Socket:
    """A client's end of a socket."""

    def __init__(self, connecting: Any) -> None:
        self._connecting = connecting
        self.connection: ClientConnection = connecting.__enter__()

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *error: Any) -> None:
        self._connecting.__exit__(*error)

    def receive(self, timeout: float = MAX_WAIT_SECONDS) -> dict[str, Any]:
        return json.loads(self.connection.recv(timeout=timeout))

    def receive_ending(self, timeout: float = MAX_WAIT_SECONDS) -> dict[str, Any]:
        """Return the next message that is not a delta."""
        while (message := self.receive(timeout))["type"] == "prompt.delta":
            pass
        return message

    def ask(self, message: object) -> dict[str, Any]:
        self.connection.send(message if isinstance(message, str | bytes) else json.dumps(message))
        return self.receive()

    def close_code(self, timeout: float = MAX_WAIT_SECONDS) -> int:
        """Read until the server closes, and return its close code."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.connection.recv(timeout=timeout)
        assert self.connection.close_code is not None
        return self.connection.close_code
