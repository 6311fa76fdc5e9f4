"""The client: a method for each call of the API."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Unpack, cast
from uuid import uuid4

import httpx

from .account import AccountClient
from .admin import AdminClient
from .batches import Batches
from .browser_login import BrowserLogin
from .errors import NotLoggedInError, ProblemError
from .events import EventSocket
from .http import HttpClient, json_list, json_object
from .keys import Keys
from .pages import filter_query, read_pages
from .resources import (
    UNFINISHED,
    Event,
    Model,
    Priority,
    Prompt,
    PromptFilter,
    RequestOptions,
    SearchMode,
    SimilarPrompt,
    Status,
    UsageBy,
    UsageReport,
    User,
)
from .retries import DEFAULT_LIMITS, RetryLimits, Sleep
from .session import Session
from .text_stream import follow
from .token_store import MemoryTokenStore, TokenStore
from .webhooks import Webhooks

DEFAULT_URL = "http://127.0.0.1:8000"

_LONG_POLL_SECONDS = 60
_MIN_POLL_INTERVAL_SECONDS = 1.0


class Client:
    """A user of a Promptwire server.

    Connection errors, 429 and 5xx are retried where that is safe, for at most `timeout` seconds and `retries` times (a
    retry at a time that the server named in `Retry-After` does not count). Methods raise

        NotLoggedInError: the user is not logged in, the login has ended, or the API key is not valid;
        ProblemError: the server answered with an error;
        UnreachableError: the server could not be reached until the retries ran out.

    Args:
        url: the server's address.
        api_key: an API key (`pw_…`), with which no login is needed. It wins over a stored login.
        token_store: stores the login; in memory by default.
        pause: sleeps for a number of seconds.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        token_store: TokenStore | None = None,
        timeout: float = DEFAULT_LIMITS.seconds,
        retries: float = DEFAULT_LIMITS.retries,
        pause: Sleep = time.sleep,
    ) -> None:
        self.url = url.rstrip("/")
        self._limits, self._sleep = RetryLimits(timeout, retries), pause
        self._http = HttpClient(self.url, self._limits, pause)
        self._session = Session(self._http, MemoryTokenStore() if token_store is None else token_store, api_key)
        self.keys = Keys(self._session)  #: the user's API keys
        self.account = AccountClient(self._session)
        self.webhooks = Webhooks(self._session)
        self.batches = Batches(self._session, pause)
        self.admin = AdminClient(self._session, pause)  #: for admins and viewers
        self._socket = EventSocket(self.url, self._session, self._limits, pause)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @property
    def username(self) -> str:
        """The name of the user."""
        return self._session.username

    def register(self, username: str, password: str) -> User:
        """Register a user. Does not log in."""
        body = {"username": username, "password": password}
        response = self._http.send("POST", "/auth/register/", json=body, idempotent=False)
        return cast(User, json_object(response, "id"))

    def login(self, username: str, password: str) -> None:
        """Log in. Raises NotLoggedInError if the username or the password is wrong."""
        self._session.log_in(username, password)

    def login_with_browser(self, open_browser: Callable[[str], object], *, seconds: float = 600) -> str:
        """Log in at the server's identity provider, with a browser on this machine. Returns the username.

        Args:
            open_browser: is called with the address that the browser must open.
            seconds: how long to wait for the browser.

        Raises:
            NotLoggedInError: the server has no identity provider, or the login failed or took too long.
        """
        if json_object(self._http.send("GET", "/auth/oidc/"), "name")["name"] is None:
            raise NotLoggedInError("This server has no identity provider: log in with a password.")
        with BrowserLogin(self.url) as login:
            open_browser(login.url)
            code = login.wait(seconds)
        return self._session.log_in_with_code(code, login.verifier).username

    def logout(self) -> str:
        """End the stored login, here and on the server. Returns its username."""
        return self._session.log_out().username

    def submit(
        self,
        text: str,
        *,
        wait: bool = False,
        history: int | None = None,
        cache: bool | None = None,
        key: str | None = None,
        websocket: bool = True,
        priority: Priority = "default",
        **request: Unpack[RequestOptions],
    ) -> Prompt:
        """Submit a prompt. Retries never create a second prompt.

        Args:
            text: the prompt.
            wait: whether to wait until the prompt has finished.
            history: how many of the user's earlier exchanges the model receives as context.
            cache: True: the answer may be that of an earlier, nearly identical prompt. False: it must not. None: the
                server's default.
            key: the idempotency key: the same key and prompt within 24 hours create one prompt. Random by default.
            websocket: whether `listen` receives an event when the prompt has finished.
            priority: "low" comes after all other prompts, but gets at least a tenth of the work.
            request: what the prompt asks for besides its text: `model`, `instructions`, `messages`, `response_format` …
                Those that are None are left out.
        """
        body: dict[str, Any] = {"prompt_text": text, "websocket": websocket}
        body |= {name: value for name, value in request.items() if value is not None}
        headers = {"Idempotency-Key": key or uuid4().hex}
        if history is not None:
            body["history"] = history
        if priority != "default":
            body["priority"] = priority
        if cache:
            body["cache"] = True
        elif cache is not None:
            headers["Cache-Control"] = "no-cache"
        prompt = self._prompt("POST", "/prompts/", json=body, headers=headers)
        return self.wait(prompt["id"]) if wait else prompt

    def show(self, prompt_id: int, *, retry: bool = True) -> Prompt:
        """Return a prompt in its present state. Without `retry` the request is sent once."""
        return self._prompt("GET", f"/prompts/{prompt_id}/", retry=retry)

    def wait(self, prompt_id: int) -> Prompt:
        """Return a prompt once it has finished, however long that takes."""
        while True:
            started = time.monotonic()
            prompt = self._prompt(
                "GET",
                f"/prompts/{prompt_id}/",
                headers={"Prefer": f"wait={_LONG_POLL_SECONDS}"},
                server_wait=_LONG_POLL_SECONDS,
            )
            if prompt["status"] not in UNFINISHED:
                return prompt
            # A server that shuts down, or does not support waiting, answers at once.
            self._sleep(max(0.0, started + _MIN_POLL_INTERVAL_SECONDS - time.monotonic()))

    def prompts(
        self, *, status: Status | None = None, limit: int | None = None, **matching: Unpack[PromptFilter]
    ) -> Iterator[Prompt]:
        """Yield the user's prompts, newest first: at most `limit`, or all.

        Args:
            matching: only prompts of this `model`, with all of these pairs in their `metadata`, and submitted `since`
                a time, or before a time, `until`.
        """
        yield from read_pages(self._session, "/prompts/", limit, status=status, **filter_query(matching))

    def similar(
        self,
        text: str,
        *,
        mode: SearchMode | None = None,
        limit: int | None = None,
        max_score: float | None = None,
        **matching: Unpack[PromptFilter],
    ) -> list[SimilarPrompt]:
        """Return the user's completed prompts most similar to a text, nearest first; at most 5 by default.

        Args:
            mode: "vector" compares meanings; "text" finds words, such as names and error codes; "hybrid" does both.
            max_score: the largest `similarity_score`; only of vectors.
            matching: as in `prompts`.
        """
        query = {"prompt": text, "mode": mode, "limit": limit, "max_score": max_score, **filter_query(matching)}
        params: dict[str, Any] = {name: value for name, value in query.items() if value is not None}
        found: list[SimilarPrompt] = []
        while True:
            response = self._session.request("GET", "/prompts/similar/", params=params)
            found += cast(list[SimilarPrompt], json_list(response, "id"))
            next_page = response.links.get("next")
            if next_page is None:
                return found
            params = dict(httpx.URL(next_page["url"]).params)

    def cancel(self, prompt_id: int) -> Prompt:
        """Cancel a prompt for good. Raises ProblemError (409) if it has already finished."""
        return self._change(prompt_id, "cancel")

    def retry(self, prompt_id: int) -> Prompt:
        """Queue a failed or cancelled prompt again. Raises ProblemError (409) for any other prompt."""
        return self._change(prompt_id, "retry")

    def delete(self, prompt_id: int) -> None:
        """Delete a prompt, its answer and its vector."""
        self._session.delete(f"/prompts/{prompt_id}/")

    def usage(self, *, since: str | None = None, until: str | None = None, by: UsageBy = "day") -> UsageReport:
        """Return what the user's prompts used, and the user's budgets.

        Args:
            since: the first day (UTC), such as "2026-11-01". By default that of the month.
            until: the last day, by default today.
            by: what the rows are about.
        """
        days = {name: day for name, day in (("since", since), ("until", until)) if day is not None}
        response = self._session.request("GET", "/usage/", params={"by": by, **days})
        return cast(UsageReport, json_object(response, "rows", "total", "budgets"))

    def models(self) -> list[Model]:
        """Return the models that the user may use: the model routes, the default one first, then the embedder."""
        found = json_object(self._session.request("GET", "/v1/models"), "data")
        return cast(list[Model], found["data"])

    def listen(self, *, since: int | None = None, everything: bool = False) -> Iterator[Event]:
        """Yield an event for each of the user's prompts that finishes, without end and without duplicates.

        Args:
            since: the `seq` of the last known event: the events after it come first. None: only new events.
            everything: also prompts that were submitted without `websocket`, and deletions (`prompt.deleted`).

        An event `reset` says that the server no longer has all events after `since`: read `prompts()`. After the first
        connection it reconnects without a limit. Raises RefusedError if the server closes the connection for good.
        """
        return self._socket.events(since, everything=everything)

    def follow(self, prompt: int | Callable[[], Prompt]) -> Iterator[Event]:
        """Yield a prompt's text as it is generated: `prompt.delta` events, then the event of its end.

        The text is complete, whenever you start to follow. A delta with a higher `attempt` than the one before it
        restarts the answer. An interrupted connection is resumed without a gap or a duplicate.

        Args:
            prompt: its id, or a function that returns the prompt, such as `lambda: client.submit("Explain tides")`; it
                is called when you ask for the first event.
        """
        prompt_id = prompt()["id"] if callable(prompt) else prompt
        yield from follow(self._session, prompt_id, self._limits, self._sleep)

    def _change(self, prompt_id: int, action: str) -> Prompt:
        try:
            return self._prompt("POST", f"/prompts/{prompt_id}/{action}/")
        except ProblemError as problem:
            if problem.status != 409 or not problem.repeated:
                raise
            return self.show(prompt_id)  # an earlier attempt has changed it

    def _prompt(self, method: str, path: str, **options: Any) -> Prompt:
        return cast(Prompt, json_object(self._session.request(method, path, **options), "id", "status"))
