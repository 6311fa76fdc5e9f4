"""Authentication: requests carry an API key, or the access token of a login, which is refreshed when it expires."""

import re
from collections.abc import Mapping
from typing import Any

import httpx

from .errors import NotLoggedInError, ProblemError
from .http import HttpClient, json_object
from .token_store import Login, TokenStore


class Session:
    """A user's session with a server, by an API key or, without one, by the stored login.

    Methods that need one of them raise NotLoggedInError if the key is not valid or there is no login.

    Raises:
        ValueError: the text is not an API key.
    """

    def __init__(self, http: HttpClient, token_store: TokenStore, api_key: str | None = None) -> None:
        if api_key is not None and re.fullmatch(r"pw_[0-9A-Za-z]+", api_key) is None:
            raise ValueError("an API key is pw_ and then letters and digits")
        self._http = http
        self._token_store = token_store
        self._api_key = api_key
        self._key_username: str | None = None

    @property
    def username(self) -> str:
        """The name of the user. With an API key the server is asked for it once."""
        if self._api_key is None:
            return self.login.username
        if self._key_username is None:
            account = json_object(self.request("GET", "/account/"), "username")
            self._key_username = str(account["username"])
        return self._key_username

    @property
    def token(self) -> str:
        """The API key, or the access token of the login."""
        return self._api_key or self.login.access

    @property
    def is_renewable(self) -> bool:
        """Whether there may be another token when this one has expired."""
        return self._api_key is None

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
        return self._store(_to_login(username, response))

    def log_in_with_code(self, code: str, verifier: str) -> Login:
        """Log in with the single-use code of a sign-in at the identity provider."""
        body = {"code": code, "code_verifier": verifier}
        response = self._http.send("POST", "/auth/oidc/token/", json=body, idempotent=False)
        return self._store(_to_login(str(json_object(response, "username")["username"]), response))

    def _store(self, login: Login) -> Login:
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
        """Send a request with the token. Options and errors are those of `HttpClient.send`."""
        token = self.token
        for is_last in (not self.is_renewable, True):
            bearer = {"Authorization": f"Bearer {token}"}
            try:
                return self._http.send(method, path, headers=bearer | dict(headers or {}), **options)
            except ProblemError as problem:
                if problem.status != 401 or is_last:
                    raise _login_error(problem) from problem
            token = self.renew(token)
        raise AssertionError

    def delete(self, path: str, **options: Any) -> None:
        """Delete what is at this path. Raises ProblemError (404) if there was nothing."""
        try:
            self.request("DELETE", path, **options)
        except ProblemError as problem:
            if problem.status != 404 or not problem.repeated:  # else an earlier attempt has deleted it
                raise

    def renew(self, expired: str) -> str:
        """Exchange the login, whose access token is no longer valid, for the next one. Returns its access token."""
        with self._token_store.locked():
            login = self.login
            if login.access != expired:  # another thread or process has refreshed it
                return login.access
            try:
                # A refresh token that is used twice ends the login.
                response = self._http.send("POST", "/auth/refresh/", json={"refresh": login.refresh}, idempotent=False)
            except ProblemError as problem:
                if problem.status == 401:
                    self._token_store.write(None)
                raise _login_error(problem) from problem
            login = _to_login(login.username, response)
            self._token_store.write(login)
            return login.access


def _to_login(username: str, response: httpx.Response) -> Login:
    pair = json_object(response, "access", "refresh")
    return Login(username, pair["access"], pair["refresh"])


def _login_error(problem: ProblemError) -> ProblemError | NotLoggedInError:
    return NotLoggedInError(problem.detail) if problem.status == 401 else problem
