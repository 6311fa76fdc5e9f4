"""A user of the deployed service, who keeps trying while parts of it restart."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

MAX_WAIT_SECONDS = 300


class LostPromptError(Exception):
    """A prompt or an event is missing, or came twice; the message says which."""


@dataclass
class User:
    """A login. All requests repeat until they are answered, for at most MAX_WAIT_SECONDS."""

    address: str  #: host and port
    name: str
    password: str
    token: str = ""

    def login(self) -> None:
        body = {"username": self.name, "password": self.password}
        self.token = self._request("POST", "/login/", json=body).json()["access"]

    def try_token(self) -> int:
        """The status of a request with the present token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.get(f"http://{self.address}/prompts/", headers=headers, timeout=30).status_code

    def submit(self, text: str, *, wait: int = 0) -> dict[str, Any]:
        """Submit a prompt once, however often the request has to be repeated."""
        headers = {"Idempotency-Key": str(uuid.uuid4())} | ({"Prefer": f"wait={wait}"} if wait else {})
        body = {"prompt_text": text, "websocket": True}
        prompt: dict[str, Any] = self._request("POST", "/prompts/", json=body, headers=headers).json()
        return prompt

    def prompts(self) -> Iterator[dict[str, Any]]:
        """All prompts, newest first."""
        path: str | None = "/prompts/?limit=100"
        while path:
            page = self._request("GET", path)
            yield from page.json()
            path = page.links.get("next", {}).get("url")

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = options.pop("headers", {}) | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        url = httpx.URL(f"http://{self.address}").join(path)
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while True:
            try:
                response = httpx.request(method, url, headers=headers, timeout=70, **options)
                if response.status_code not in (409, 502, 503, 504):
                    return response.raise_for_status()
                problem = response.text
            except httpx.TransportError as error:
                problem = str(error)
            if time.monotonic() > deadline:
                raise LostPromptError(f"{method} {path} is not answered: {problem}")
            time.sleep(0.2)


@dataclass
class Listener:
    """A socket in the user's room. It reconnects by itself, as docs/api.md says, and notes what it receives."""

    user: User
    events: list[dict[str, Any]] = field(default_factory=list)
    _since: int | None = None

    def __post_init__(self) -> None:
        self._is_joined, self._is_stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        if not self._is_joined.wait(MAX_WAIT_SECONDS):
            raise LostPromptError("The socket does not connect.")

    def stop(self) -> None:
        self._is_stopped.set()
        self._thread.join(MAX_WAIT_SECONDS)

    def wait_for(self, ids: set[int]) -> None:
        """Wait until these prompts have finished. Raises LostPromptError unless each came once, completed, in order."""
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while missing := ids - {event["id"] for event in self.events}:
            if time.monotonic() > deadline:
                raise LostPromptError(f"No event for {len(missing)} of {len(ids)} prompts: {sorted(missing)[:10]}.")
            time.sleep(0.05)
        numbers = [event["seq"] for event in self.events]
        received = [event["id"] for event in self.events]
        if numbers != sorted(set(numbers)) or len(received) != len(set(received)):
            raise LostPromptError(f"Events came twice or out of order: {numbers}")
        failed = [event for event in self.events if event["type"] != "prompt.completed"]
        if failed:
            raise LostPromptError(f"A prompt was not completed: {failed[0]}")

    def _listen(self) -> None:
        while not self._is_stopped.is_set():
            since = "" if self._since is None else f"?since={self._since}"
            url = f"ws://{self.user.address}/ws/prompts/{self.user.name}/{since}"
            try:
                headers = {"Authorization": f"Bearer {self.user.token}"}
                with connect(url, additional_headers=headers, open_timeout=5, close_timeout=1) as socket:
                    self._receive(socket)
            except (OSError, WebSocketException):
                self._is_stopped.wait(0.2)

    def _receive(self, socket: Any) -> None:
        while not self._is_stopped.is_set():
            try:
                event = json.loads(socket.recv(timeout=0.2))
            except TimeoutError:
                continue
            if event["type"] == "connected":
                self._since = event["seq"] if self._since is None else self._since
                self._is_joined.set()
            elif event["type"] in ("prompt.completed", "prompt.failed", "prompt.cancelled"):
                self.events.append(event)
                self._since = event["seq"]


class Burst:
    """Prompts that are submitted one after the other, in a thread, while something happens."""

    def __init__(self, user: User, name: str, count: int) -> None:
        self._user, self._name, self._count = user, name, count
        self._ids: set[int] = set()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._submit, daemon=True)
        self._thread.start()

    def ids(self) -> set[int]:
        """Wait until all are submitted. Raises what the submission raised."""
        self._thread.join(MAX_WAIT_SECONDS * 2)
        if self._error is not None:
            raise self._error
        if len(self._ids) != self._count:
            raise LostPromptError(f"{self._name}: {len(self._ids)} ids for {self._count} prompts.")
        return self._ids

    def _submit(self) -> None:
        try:
            for number in range(self._count):
                self._ids.add(self._user.submit(f"{self._name}, prompt {number}")["id"])
                time.sleep(0.02)
        except Exception as error:
            self._error = error
