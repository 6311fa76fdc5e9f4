"""Requests, repeated where that is safe."""

from collections.abc import Mapping
from typing import Any

import httpx

from .errors import ProblemError, UnreachableError
from .retries import Patience, Pause, Retries

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 30.0
_KEY_IN_USE = "urn:promptwire:problem:idempotency-key-in-use"
#: Refused before anything was done.
_BUSY = {429, 503}
#: Perhaps after something was done.
_BROKEN = {500, 502, 504}


class Transport:
    """Sends requests to one server."""

    def __init__(self, url: str, patience: Patience, pause: Pause) -> None:
        self.url = url
        self._patience = patience
        self._pause = pause
        self._http = httpx.Client(base_url=url, headers={"Accept": "application/json, application/problem+json"})

    def close(self) -> None:
        self._http.close()

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        json: object = None,
        repeatable: bool = True,
        waiting: float = 0.0,
        silence: float | None = None,
    ) -> httpx.Response:
        """A request's answer.

        Args:
            repeatable: whether doing it twice is the same as doing it once. If not, it is repeated only where it
                cannot have been done.
            waiting: the seconds that the server may wait before it answers.
            silence: the answer is a stream, of which something comes every so many seconds. It is returned unread, to
                be closed.

        Raises:
            ProblemError: the answer is an error that does not pass, or that did not in time.
            UnreachableError: there was no answer.
        """
        retries, repeated = Retries(self._patience, self._pause, waiting), False
        while True:
            failure: UnreachableError | ProblemError
            try:
                timeout = _timeout(retries, waiting, silence)
                request = self._http.build_request(
                    method, path, headers=headers, params=params, json=json, timeout=timeout
                )
                response = self._http.send(request, stream=silence is not None)
                if not response.is_success:
                    response.read()
            except httpx.RequestError as error:
                failure = UnreachableError(f"{self.url} cannot be reached ({str(error) or type(error).__name__}).")
                if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):  # it may have been sent
                    if not repeatable:
                        raise failure from error
                    repeated = True
            else:
                if response.is_success:
                    return response
                failure = ProblemError(response.status_code, response.headers, response.content, repeated=repeated)
                if not _may_pass(failure, repeatable):
                    raise failure
                repeated = repeated or failure.status in _BROKEN
            retries.wait(failure)


def content(response: httpx.Response, *needed: str) -> Any:
    """The JSON of an answer: an object with these members, or a list of such.

    Raises:
        UnreachableError: it is something else, so something else answers there.
    """
    try:
        value = response.json()
    except (ValueError, RecursionError) as error:
        raise foreign(response) from error
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict) or not each.keys() >= set(needed):
            raise foreign(response)
    return value


def foreign(response: httpx.Response) -> UnreachableError:
    """Something else answers there."""
    return UnreachableError(f"What answers at {response.url} is not Promptwire's API.")


def _timeout(retries: Retries, waiting: float, silence: float | None) -> httpx.Timeout:
    """That of one try; `waiting` comes on top, for the answer."""
    left = max(0.1, retries.seconds_left - waiting)
    usual = min(_READ_SECONDS, left)
    return httpx.Timeout(
        usual, connect=min(_CONNECT_SECONDS, left), read=waiting + usual if silence is None else silence
    )


def _may_pass(problem: ProblemError, repeatable: bool) -> bool:
    if problem.status in _BUSY or problem.type == _KEY_IN_USE:
        return True
    return problem.status in _BROKEN and repeatable
