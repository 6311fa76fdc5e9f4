"""The client: what the API can do, as methods."""

import time
from collections.abc import Callable, Iterator
from typing import Any, cast
from uuid import uuid4

import httpx

from .errors import ProblemError
from .http import Transport, content, foreign
from .resources import UNFINISHED, Event, Prompt, SimilarPrompt, Status, User
from .retries import USUAL, Patience, Pause
from .room import Room
from .session import Session
from .text_stream import follow
from .token_store import MemoryTokenStore, TokenStore

DEFAULT_URL = "http://127.0.0.1:8000"

_WAIT_SECONDS = 60
_LARGEST_PAGE = 100
_LEAST_SECONDS_BETWEEN_LOOKS = 1.0


class Client:
    """A user of a Promptwire server.

    Connection errors, 429 and 5xx are tried again, where that does nothing twice, for `timeout` seconds and `retries`
    times (times that the server has named in `Retry-After` do not count). Methods raise

        NotLoggedInError: there is no login, or it has ended;
        ProblemError: the server refuses;
        UnreachableError: the server cannot be reached, and could not be for so long.

    Args:
        url: the server's address.
        keeper: where the login is kept; in memory, if not given.
        pause: how to wait so many seconds.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        token_store: TokenStore | None = None,
        timeout: float = USUAL.seconds,
        retries: float = USUAL.retries,
        pause: Pause = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._patience, self._pause = Patience(timeout, retries), pause
        self._transport = Transport(self.url, self._patience, pause)
        self._session = Session(self._transport, MemoryTokenStore() if token_store is None else token_store)
        self._room = Room(self.url, self._session, self._patience, pause)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def username(self) -> str:
        """Who is logged in."""
        return self._session.login.username

    def register(self, username: str, password: str) -> User:
        """Adds a user, who is not logged in by that."""
        body = {"username": username, "password": password}
        return cast(User, content(self._transport.send("POST", "/auth/register/", json=body, repeatable=False), "id"))

    def login(self, username: str, password: str) -> None:
        """Logs in. Raises NotLoggedInError if the username or the password is wrong."""
        self._session.start(username, password)

    def logout(self) -> None:
        """Ends the login, here and on the server."""
        self._session.end()

    def submit(
        self,
        text: str,
        *,
        wait: bool = False,
        history: int | None = None,
        cache: bool | None = None,
        key: str | None = None,
        websocket: bool = True,
    ) -> Prompt:
        """Submits a prompt, once, however often it has to be tried.

        Args:
            text: the prompt.
            wait: whether to wait for its end.
            history: how many of the user's earlier exchanges the answer is to know of.
            cache: True: it may be answered from an earlier prompt that is nearly the same. False: it must not. None:
                as the server has it.
            key: the same key and prompt within 24 hours make one prompt. One is made if not given.
            websocket: whether its end is told to `listen`.
        """
        body: dict[str, Any] = {"prompt_text": text, "websocket": websocket}
        headers = {"Idempotency-Key": key or uuid4().hex}
        if history is not None:
            body["history"] = history
        if cache:
            body["cache"] = True
        elif cache is not None:
            headers["Cache-Control"] = "no-cache"
        prompt = self._prompt("POST", "/prompts/", json=body, headers=headers)
        return self.wait(prompt["id"]) if wait else prompt

    def show(self, prompt_id: int) -> Prompt:
        """A prompt as it is."""
        return self._prompt("GET", f"/prompts/{prompt_id}/")

    def wait(self, prompt_id: int) -> Prompt:
        """A prompt when it has ended, however long that takes."""
        while True:
            asked = time.monotonic()
            prompt = self._prompt(
                "GET", f"/prompts/{prompt_id}/", headers={"Prefer": f"wait={_WAIT_SECONDS}"}, waiting=_WAIT_SECONDS
            )
            if prompt["status"] not in UNFINISHED:
                return prompt
            # A server that does not wait, or is going down, answers at once.
            self._pause(max(0.0, asked + _LEAST_SECONDS_BETWEEN_LOOKS - time.monotonic()))

    def prompts(self, *, status: Status | None = None, limit: int | None = None) -> Iterator[Prompt]:
        """The user's prompts, newest first: at most so many, or all."""
        left = float("inf") if limit is None else limit
        params: dict[str, Any] = {} if status is None else {"status": status}
        while left > 0:
            params["limit"] = int(min(left, _LARGEST_PAGE))
            response = self._session.call("GET", "/prompts/", params=params)
            page: list[Prompt] = _listed(response)
            yield from page
            left -= len(page)
            following = response.links.get("next")
            if following is None:
                return
            params = dict(httpx.URL(following["url"]).params)

    def similar(self, text: str, *, limit: int | None = None, max_score: float | None = None) -> list[SimilarPrompt]:
        """The user's completed prompts that are most like a text, nearest first, at most 5 unless told."""
        given = {"prompt": text, "limit": limit, "max_score": max_score}
        params = {name: value for name, value in given.items() if value is not None}
        return cast(list[SimilarPrompt], _listed(self._session.call("GET", "/prompts/similar/", params=params)))

    def cancel(self, prompt_id: int) -> Prompt:
        """Ends a prompt for good. One that has ended already is a ProblemError (409)."""
        return self._change(prompt_id, "cancel")

    def retry(self, prompt_id: int) -> Prompt:
        """Queues a failed or cancelled prompt again. Any other is a ProblemError (409)."""
        return self._change(prompt_id, "retry")

    def delete(self, prompt_id: int) -> None:
        """Deletes a prompt, its answer and its vector."""
        try:
            self._session.call("DELETE", f"/prompts/{prompt_id}/")
        except ProblemError as problem:
            if problem.status != 404 or not problem.repeated:  # else it was an earlier try that deleted it
                raise

    def listen(self, *, since: int | None = None) -> Iterator[Event]:
        """The user's finished prompts as they finish, each event once, without an end.

        Args:
            since: the `seq` of the last event that is known: those after it come first. None: only those to come.

        An event `reset` says that those after `since` are not kept any more: read `prompts()`. Once joined, the room is
        joined again whenever the connection ends, however long that takes. Raises RefusedError if the server has the
        user leave for good.
        """
        return self._room.events(since)

    def follow(self, prompt: int | Callable[[], Prompt]) -> Iterator[Event]:
        """A prompt's text as it is generated: events `prompt.delta`, then the one of its end.

        All of the text is told, whenever that begins. A delta of a higher `attempt` than the one before it begins the
        answer anew. A connection that ends before is opened again, and nothing told twice.

        Args:
            prompt: its id, or what gives it, such as `lambda: client.submit("Explain tides")`, called when the first
                event is asked for.
        """
        prompt_id = prompt()["id"] if callable(prompt) else prompt
        yield from follow(self._session, prompt_id, self._patience, self._pause)

    def _change(self, prompt_id: int, how: str) -> Prompt:
        try:
            return self._prompt("POST", f"/prompts/{prompt_id}/{how}/")
        except ProblemError as problem:
            if problem.status != 409 or not problem.repeated:
                raise
            return self.show(prompt_id)  # an earlier try has changed it

    def _prompt(self, method: str, path: str, **options: Any) -> Prompt:
        response = self._session.call(method, path, **options)
        prompt = content(response, "id", "status")
        if isinstance(prompt, list):
            raise foreign(response)
        return cast(Prompt, prompt)


def _listed(response: httpx.Response) -> Any:
    found = content(response, "id")
    if not isinstance(found, list):
        raise foreign(response)
    return found
