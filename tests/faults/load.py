"""Persistent users: each submits until a prompt is accepted, and listens until it has all events, whatever fails.

They use the API as documented: an `Idempotency-Key` for each prompt, and `since` when they join again.
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
from tests.support.servers import MAX_WAIT_SECONDS

_SUBJECTS = ("tides", "rust", "owls", "glaciers", "bread", "comets", "violins", "harbours", "moss", "kites")
_QUESTIONS = (
    "Why are there",
    "Explain to me the",
    "Who has invented",
    "Write a poem about",
    "Summarise what is known of",
)
#: Keep-alive is short, so that requests are spread over both hosts.
_LIMITS = httpx.Limits(keepalive_expiry=1)
_RETRY_SECONDS = 0.1
_ANSWER_TIMEOUT_SECONDS = 300
_SHARE_CANCELLED = 0.05


class Call(NamedTuple):
    """One request: its kind, when it started, how long it took, and its status or how it failed."""

    kind: str
    started: float
    seconds: float
    answer: int | str


class PushedEvent(NamedTuple):
    """A prompt's ending, as a socket receives it."""

    seq: int
    prompt_id: int
    change: str


_RESET = PushedEvent(-1, -1, "reset")


def _failure(error: httpx.TransportError) -> str:
    """Name a failed request. A stopping server may cause only `refused` and `closed` (before any response byte)."""
    if isinstance(error, httpx.ConnectError):
        return "refused"
    if isinstance(error, httpx.RemoteProtocolError) and "without sending a response" in str(error):
        return "closed"
    return "timeout" if isinstance(error, httpx.TimeoutException) else f"broken: {type(error).__name__}: {error}"


class LoadUser:
    """One user: a thread that submits, a thread that listens, and a record of both."""

    def __init__(self, urls: Sequence[str], calls: list[Call], *, window: int, pause: float) -> None:
        self.username = f"user-{uuid4().hex[:8]}"
        self.accepted: list[int] = []
        self.cancelled: list[int] = []
        self.expected_to_fail: set[int] = set()
        self.received: list[PushedEvent] = []
        self.errors: list[BaseException] = []
        self._hosts = random.sample(urls, len(urls))
        self._urls = cycle(self._hosts)
        self._url = next(self._urls)
        self._calls = calls
        self._pause = pause
        self._window = threading.Semaphore(window)
        self._stop_submitting = threading.Event()
        self._leave = threading.Event()
        self._http = httpx.Client(timeout=30, limits=_LIMITS)
        body = {"username": self.username, "password": PASSWORD}
        self.id: int = self.persist("register", "POST", "/auth/register/", json=body).json()["id"]
        access = self.persist("login", "POST", "/login/", json=body).json()["access"]
        self.headers = {"Authorization": f"Bearer {access}"}
        self._http.headers.update(self.headers)
        self._submitting: list[threading.Thread] = []
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def call(
        self,
        kind: str,
        method: str,
        path: str,
        *,
        url: str | None = None,
        http: httpx.Client | None = None,
        **options: Any,
    ) -> httpx.Response | None:
        """Send one request and record it. If the connection fails, return None and switch to the other host.

        `http` is a client with other connections than the user's usual ones.
        """
        started = time.monotonic()
        response, answer = None, 0
        try:
            response = (http or self._http).request(method, (url or self._url) + path, **options)
            answer = response.status_code
        except httpx.TransportError as error:
            answer = _failure(error)
            self._url = next(self._urls)
        self._calls.append(Call(kind, started, time.monotonic() - started, answer))
        return response

    def persist(
        self, kind: str, method: str, path: str, *, settled: tuple[int, ...] = (), **options: Any
    ) -> httpx.Response:
        """Repeat a request until it succeeds or has a `settled` status, for at most five minutes."""
        deadline = time.monotonic() + _ANSWER_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            response = self.call(kind, method, path, **options)
            if response is not None and response.status_code in settled:
                return response
            if response is not None and response.status_code not in (409, 429, 503):
                return response.raise_for_status()
            time.sleep(_RETRY_SECONDS)
        raise TimeoutError(f"{method} {path} was not answered in {_ANSWER_TIMEOUT_SECONDS} s")

    def submit(self, text: str) -> int:
        """Submit until the prompt is accepted; the key prevents duplicates. Return its id."""
        body = {"prompt_text": text, "websocket": True}
        key = {"Idempotency-Key": uuid4().hex}
        prompt_id: int = self.persist("submit", "POST", "/prompts/", json=body, headers=key).json()["id"]
        self.accepted.append(prompt_id)
        return prompt_id

    def cancel(self, prompt_id: int) -> None:
        """Cancel the prompt if it is not finished."""
        response = self.persist("cancel", "POST", f"/prompts/{prompt_id}/cancel/", settled=(200, 409))
        if response.status_code == 200:
            self.cancelled.append(prompt_id)

    def search(self, text: str, limit: int, *, url: str) -> list[dict[str, Any]]:
        """Search at this host, and repeat until it answers."""
        options = {"params": {"prompt": text, "limit": limit}, "url": url}
        found: list[dict[str, Any]] = self.persist("search", "GET", "/prompts/similar/", **options).json()
        return found

    def start(self, texts: Iterator[str]) -> None:
        """Submit these in the background, with at most `window` prompts whose ending was not received."""
        self.in_background(lambda: self._submit_all(texts))

    def in_background(self, work: Callable[[], None]) -> None:
        """Run this in a thread until `finish_submitting`. Keep its exception in `errors`."""

        def watched() -> None:
            try:
                work()
            except Exception as error:
                self.errors.append(error)

        self._submitting.append(threading.Thread(target=watched))
        self._submitting[-1].start()

    @property
    def is_busy(self) -> bool:
        """Whether the user still submits."""
        return any(thread.is_alive() for thread in self._submitting)

    def finish_submitting(self) -> None:
        """Stop submitting, and wait for the submissions in progress."""
        self._stop_submitting.set()
        for thread in self._submitting:
            thread.join(MAX_WAIT_SECONDS)

    def leave(self) -> None:
        self.finish_submitting()
        self._leave.set()
        self._listening.join(MAX_WAIT_SECONDS)
        self._http.close()

    @property
    def is_finishing(self) -> bool:
        return self._stop_submitting.is_set()

    @property
    def seq(self) -> int:
        """The newest feed number received."""
        return self.received[-1].seq if self.received else 0

    def _submit_all(self, texts: Iterator[str]) -> None:
        for text in texts:
            while not self._window.acquire(timeout=0.1):
                if self._stop_submitting.is_set():
                    return
            if self._stop_submitting.is_set():
                return
            prompt_id = self.submit(text)
            if random.random() < _SHARE_CANCELLED:
                self._stop_submitting.wait(random.choice((0.0, 0.1, 0.2)))  # before, during or after the generation
                self.cancel(prompt_id)
            self._stop_submitting.wait(self._pause)

    def _listen(self) -> None:
        for url in cycle(self._hosts):
            if self._leave.is_set():
                return
            path = f"{url.replace('http', 'ws', 1)}/ws/prompts/{self.username}/?since={self.seq}"
            with contextlib.suppress(OSError, TimeoutError, WebSocketException, InvalidHandshake):
                self._receive(path)
            self._leave.wait(_RETRY_SECONDS)

    def _receive(self, path: str) -> None:
        with connect(path, additional_headers=self.headers, open_timeout=5, close_timeout=1) as room:
            while not self._leave.is_set():
                with contextlib.suppress(TimeoutError):
                    event = json.loads(room.recv(timeout=0.5))
                    if event["type"] == "reset":
                        self.received.append(_RESET)  # no event is old enough for a reset: it counts as repeated
                    elif event["type"] not in ("connected", "prompt.delta", "batch.progress"):
                        self.received.append(
                            PushedEvent(event["seq"], event["id"], event["type"].removeprefix("prompt."))
                        )
                        self._window.release()


def questions(share_of_slow: float = 0.1, count: int | None = None) -> Iterator[str]:
    """Yield unique texts with common words. The generator takes 0.2 s for some of them."""
    number = 0
    while count is None or number < count:
        number += 1
        text = f"{random.choice(_QUESTIONS)} {random.choice(_SUBJECTS)} {random.choice(_SUBJECTS)} {uuid4().hex[:6]}"
        yield f"slow 2 {text}" if random.random() < share_of_slow else text
