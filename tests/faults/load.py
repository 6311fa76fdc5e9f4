"""Users who do not let go: each submits until it is accepted, and listens until all has been told, whatever dies.

They use the API as its documentation tells them to: an `Idempotency-Key` for each prompt, `since` on joining again.
"""

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import connect

from tests.support.client import PASSWORD

_SUBJECTS = ("tides", "rust", "owls", "glaciers", "bread", "comets", "violins", "harbours", "moss", "kites")
_QUESTIONS = (
    "Why are there",
    "Explain to me the",
    "Who has invented",
    "Write a poem about",
    "Summarise what is known of",
)
#: Connections may be kept alive, but not for long, so that both hosts get their share.
_LIMITS = httpx.Limits(keepalive_expiry=1)
_AGAIN_SECONDS = 0.1
_PATIENCE_SECONDS = 300
_SHARE_CANCELLED = 0.05


class Call(NamedTuple):
    """One request: what for, when it began, how long it took, and its status or how it failed."""

    kind: str
    begun: float
    seconds: float
    answer: int | str


class Heard(NamedTuple):
    """An ending, as a socket is told of it."""

    seq: int
    prompt_id: int
    change: str


_RESET = Heard(-1, -1, "reset")


def _failure(error: httpx.TransportError) -> str:
    """`refused` and `closed` (before any byte of an answer) are how a server that stops may end a connection."""
    if isinstance(error, httpx.ConnectError):
        return "refused"
    if isinstance(error, httpx.RemoteProtocolError) and "without sending a response" in str(error):
        return "closed"
    return "timeout" if isinstance(error, httpx.TimeoutException) else f"broken: {type(error).__name__}: {error}"


class Member:
    """One user: a thread that submits, a thread that listens, and what they saw."""

    def __init__(self, urls: Sequence[str], calls: list[Call], *, window: int, pause: float) -> None:
        self.username = f"user-{uuid4().hex[:8]}"
        self.accepted: list[int] = []
        self.cancelled: list[int] = []
        self.meant_to_fail: set[int] = set()
        self.heard: list[Heard] = []
        self.errors: list[BaseException] = []
        self._hosts = random.sample(urls, len(urls))
        self._urls = cycle(self._hosts)
        self._url = next(self._urls)
        self._calls = calls
        self._pause = pause
        self._window = threading.Semaphore(window)
        self._enough = threading.Event()
        self._leave = threading.Event()
        self._http = httpx.Client(timeout=30, limits=_LIMITS)
        body = {"username": self.username, "password": PASSWORD}
        self.id: int = self.persist("register", "POST", "/auth/register/", json=body).json()["id"]
        access = self.persist("login", "POST", "/login/", json=body).json()["access"]
        self.headers = {"Authorization": f"Bearer {access}"}
        self._http.headers.update(self.headers)
        self._working: list[threading.Thread] = []
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def call(
        self, kind: str, method: str, path: str, *, url: str | None = None, **options: Any
    ) -> httpx.Response | None:
        """One request, noted. None if the connection failed; the next one goes to the other host."""
        begun = time.monotonic()
        response, answer = None, 0
        try:
            response = self._http.request(method, (url or self._url) + path, **options)
            answer = response.status_code
        except httpx.TransportError as error:
            answer = _failure(error)
            self._url = next(self._urls)
        self._calls.append(Call(kind, begun, time.monotonic() - begun, answer))
        return response

    def persist(
        self, kind: str, method: str, path: str, *, settled: tuple[int, ...] = (), **options: Any
    ) -> httpx.Response:
        """Asks again until there is an answer that a client can go on with, at most for five minutes."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            response = self.call(kind, method, path, **options)
            if response is not None and response.status_code in settled:
                return response
            if response is not None and response.status_code not in (409, 429, 503):
                return response.raise_for_status()
            time.sleep(_AGAIN_SECONDS)
        raise TimeoutError(f"{method} {path} was not answered in {_PATIENCE_SECONDS} s")

    def submit(self, text: str) -> int:
        """Submits until it is accepted; the key keeps it one prompt. Returns its id."""
        body = {"prompt_text": text, "websocket": True}
        key = {"Idempotency-Key": uuid4().hex}
        prompt_id: int = self.persist("submit", "POST", "/prompts/", json=body, headers=key).json()["id"]
        self.accepted.append(prompt_id)
        return prompt_id

    def cancel(self, prompt_id: int) -> None:
        """Cancels it, if it has not ended."""
        response = self.persist("cancel", "POST", f"/prompts/{prompt_id}/cancel/", settled=(200, 409))
        if response.status_code == 200:
            self.cancelled.append(prompt_id)

    def search(self, text: str, limit: int, *, url: str) -> list[dict[str, Any]]:
        """What this host finds, once it answers."""
        options = {"params": {"prompt": text, "limit": limit}, "url": url}
        found: list[dict[str, Any]] = self.persist("search", "GET", "/prompts/similar/", **options).json()
        return found

    def begin(self, texts: Iterator[str]) -> None:
        """Submits these in the background, never more than the window ahead of what has been heard of."""
        self.in_background(lambda: self._submit_all(texts))

    def in_background(self, work: Callable[[], None]) -> None:
        """Does this in a thread of its own, until `enough`; how it fails is kept in `errors`."""

        def watched() -> None:
            try:
                work()
            except Exception as error:
                self.errors.append(error)

        self._working.append(threading.Thread(target=watched))
        self._working[-1].start()

    @property
    def is_busy(self) -> bool:
        """Whether it still submits."""
        return any(thread.is_alive() for thread in self._working)

    def enough(self) -> None:
        """Ends the submitting; what has begun is brought to its end."""
        self._enough.set()
        for thread in self._working:
            thread.join()

    def leave(self) -> None:
        self.enough()
        self._leave.set()
        self._listening.join()
        self._http.close()

    @property
    def has_enough(self) -> bool:
        return self._enough.is_set()

    @property
    def seq(self) -> int:
        """The newest number heard."""
        return self.heard[-1].seq if self.heard else 0

    def _submit_all(self, texts: Iterator[str]) -> None:
        for text in texts:
            while not self._window.acquire(timeout=0.1):
                if self._enough.is_set():
                    return
            if self._enough.is_set():
                return
            prompt_id = self.submit(text)
            if random.random() < _SHARE_CANCELLED:
                self._enough.wait(random.choice((0.0, 0.1, 0.2)))  # before, during or after the generation
                self.cancel(prompt_id)
            self._enough.wait(self._pause)

    def _listen(self) -> None:
        for url in cycle(self._hosts):
            if self._leave.is_set():
                return
            path = f"{url.replace('http', 'ws', 1)}/ws/prompts/{self.username}/?since={self.seq}"
            with contextlib.suppress(OSError, TimeoutError, WebSocketException, InvalidHandshake):
                self._hear(path)
            self._leave.wait(_AGAIN_SECONDS)

    def _hear(self, path: str) -> None:
        with connect(path, additional_headers=self.headers, open_timeout=5, close_timeout=1) as room:
            while not self._leave.is_set():
                with contextlib.suppress(TimeoutError):
                    event = json.loads(room.recv(timeout=0.5))
                    if event["type"] == "reset":
                        self.heard.append(_RESET)  # nothing here is old enough for one, so it counts as a repeat
                    elif event["type"] not in ("connected", "prompt.delta"):
                        self.heard.append(Heard(event["seq"], event["id"], event["type"].removeprefix("prompt.")))
                        self._window.release()


def questions(share_of_slow: float = 0.1, count: int | None = None) -> Iterator[str]:
    """Texts that are all different and have words in common; some take the generator 0.2 s."""
    number = 0
    while count is None or number < count:
        number += 1
        text = f"{random.choice(_QUESTIONS)} {random.choice(_SUBJECTS)} {random.choice(_SUBJECTS)} {uuid4().hex[:6]}"
        yield f"slow 2 {text}" if random.random() < share_of_slow else text
