"""Being logged in: calls bear the access token, and an expired one is exchanged for the next."""

from collections.abc import Mapping
from typing import Any

import httpx

from .errors import NotLoggedInError, ProblemError
from .http import Transport, content
from .token_store import Login, TokenStore


class Session:
    """A user's session with a server. Whatever needs a login raises NotLoggedInError if there is none."""

    def __init__(self, transport: Transport, token_store: TokenStore) -> None:
        self._transport = transport
        self._token_store = token_store

    @property
    def login(self) -> Login:
        login = self._token_store.read()
        if login is None:
            raise NotLoggedInError
        return login

    def start(self, username: str, password: str) -> Login:
        """Logs in. Raises NotLoggedInError if the username or the password is wrong."""
        try:
            response = self._transport.send("POST", "/login/", json={"username": username, "password": password})
        except ProblemError as problem:
            raise _unauthorized(problem) from problem
        login = _login(username, response)
        with self._token_store.locked():
            self._token_store.write(login)
        return login

    def end(self) -> Login:
        """Ends the login, here and on the server, and returns it."""
        with self._token_store.locked():
            login = self.login
            try:
                self._transport.send("POST", "/auth/logout/", json={"refresh": login.refresh})
            except ProblemError as problem:
                if problem.status != 401:  # at 401 it has ended already
                    raise
            self._token_store.write(None)
        return login

    def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        """A request with the access token. The options, and what it raises, are those of `Transport.send`."""
        login = self.login
        for is_last in (False, True):
            bearer = {"Authorization": f"Bearer {login.access}"}
            try:
                return self._transport.send(method, path, headers=bearer | dict(headers or {}), **options)
            except ProblemError as problem:
                if problem.status != 401 or is_last:
                    raise _unauthorized(problem) from problem
            login = self.renew(login)
        raise AssertionError

    def renew(self, spent: Login) -> Login:
        """The next login after this one, whose access token is not good any more."""
        with self._token_store.locked():
            login = self.login
            if login.access != spent.access:  # somebody else has renewed it meanwhile
                return login
            try:
                # Not repeatable: a refresh token that is used twice ends the login.
                response = self._transport.send(
                    "POST", "/auth/refresh/", json={"refresh": login.refresh}, repeatable=False
                )
            except ProblemError as problem:
                if problem.status == 401:
                    self._token_store.write(None)
                raise _unauthorized(problem) from problem
            login = _login(login.username, response)
            self._token_store.write(login)
            return login


def _login(username: str, response: httpx.Response) -> Login:
    pair = content(response, "access", "refresh")
    return Login(username, pair["access"], pair["refresh"])


def _unauthorized(problem: ProblemError) -> ProblemError | NotLoggedInError:
    return NotLoggedInError(problem.detail) if problem.status == 401 else problem
