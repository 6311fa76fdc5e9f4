"""The login: requests carry the access token, and an expired one is refreshed."""

from collections.abc import Mapping
from typing import Any

import httpx

from .errors import NotLoggedInError, ProblemError
from .http import HttpClient, json_content
from .token_store import Login, TokenStore


class Session:
    """A user's session with a server. Methods that need a login raise NotLoggedInError without one."""

    def __init__(self, http: HttpClient, token_store: TokenStore) -> None:
        self._http = http
        self._token_store = token_store

    @property
    def login(self) -> Login:
        login = self._token_store.read()
        if login is None:
            raise NotLoggedInError
        return login

    def log_in(self, username: str, password: str) -> Login:
        """Log in. Raises NotLoggedInError if the username or the password is wrong."""
        try:
            response = self._http.send("POST", "/login/", json={"username": username, "password": password})
        except ProblemError as problem:
            raise _login_error(problem) from problem
        login = _to_login(username, response)
        with self._token_store.locked():
            self._token_store.write(login)
        return login

    def log_out(self) -> Login:
        """End the login, here and on the server, and return it."""
        with self._token_store.locked():
            login = self.login
            try:
                self._http.send("POST", "/auth/logout/", json={"refresh": login.refresh})
            except ProblemError as problem:
                if problem.status != 401:  # 401: the login has already ended
                    raise
            self._token_store.write(None)
        return login

    def forget(self) -> None:
        """Forget the login here, because it has ended on the server."""
        with self._token_store.locked():
            self._token_store.write(None)

    def request(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        """Send a request with the access token. Options and errors are those of `HttpClient.send`."""
        login = self.login
        for is_last in (False, True):
            bearer = {"Authorization": f"Bearer {login.access}"}
            try:
                return self._http.send(method, path, headers=bearer | dict(headers or {}), **options)
            except ProblemError as problem:
                if problem.status != 401 or is_last:
                    raise _login_error(problem) from problem
            login = self.refresh(login)
        raise AssertionError

    def refresh(self, expired: Login) -> Login:
        """Exchange a login whose access token is no longer valid for the next one."""
        with self._token_store.locked():
            login = self.login
            if login.access != expired.access:  # another thread or process has refreshed it
                return login
            try:
                # A refresh token that is used twice ends the login.
                response = self._http.send("POST", "/auth/refresh/", json={"refresh": login.refresh}, idempotent=False)
            except ProblemError as problem:
                if problem.status == 401:
                    self._token_store.write(None)
                raise _login_error(problem) from problem
            login = _to_login(login.username, response)
            self._token_store.write(login)
            return login


def _to_login(username: str, response: httpx.Response) -> Login:
    pair = json_content(response, "access", "refresh")
    return Login(username, pair["access"], pair["refresh"])


def _login_error(problem: ProblemError) -> ProblemError | NotLoggedInError:
    return NotLoggedInError(problem.detail) if problem.status == 401 else problem
