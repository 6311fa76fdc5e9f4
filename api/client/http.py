"""HTTP requests, retried where that is safe."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from .errors import ProblemError, UnreachableError
from .retries import Retries, RetryLimits, Sleep

_CONNECT_SECONDS, _READ_SECONDS = 5.0, 30.0
_KEY_IN_USE = "urn:promptwire:problem:idempotency-key-in-use"
#: The server refused the request before it did anything.
_BUSY_STATUSES = {429, 503}
#: The server may have carried out the request.
_BROKEN_STATUSES = {500, 502, 504}


class HttpClient:
    """Sends requests to one server."""

    def __init__(self, url: str, limits: RetryLimits, sleep: Sleep) -> None:
        self.url = url
        self._limits = limits
        self._sleep = sleep
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
        data: Mapping[str, Any] | None = None,
        files: Mapping[str, Any] | None = None,
        idempotent: bool = True,
        retry: bool = True,
        server_wait: float = 0.0,
        stream_timeout: float | None = None,
    ) -> httpx.Response:
        """Send a request and return the response.

        Args:
            data, files: the fields and the open files of a form. A retry reads the files again.
            idempotent: whether sending it twice has the same effect as sending it once. If not, it is retried only
                where the server cannot have carried it out.
            retry: whether to try again at all.
            server_wait: the seconds that the server may wait before it answers.
            stream_timeout: set for a stream: the longest silence, in seconds, between two parts of it. The response is
                returned unread; the caller closes it.

        Raises:
            ProblemError: the server answered with an error that is permanent, or that lasted too long.
            UnreachableError: the server did not answer.
        """
        retries, repeated = Retries(self._limits, self._sleep, server_wait), False
        while True:
            failure: UnreachableError | ProblemError
            try:
                timeout = _timeout(retries, server_wait, stream_timeout)
                request = self._http.build_request(
                    method, path, headers=headers, params=params, json=json, data=data, files=files, timeout=timeout
                )
                response = self._http.send(request, stream=stream_timeout is not None)
                if not response.is_success:
                    response.read()
            except httpx.RequestError as error:
                failure = UnreachableError(f"{self.url} cannot be reached ({str(error) or type(error).__name__}).")
                if not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):  # it may have been sent
                    if not idempotent:
                        raise failure from error
                    repeated = True
            else:
                if response.is_success:
                    return response
                failure = ProblemError(response.status_code, response.headers, response.content, repeated=repeated)
                if not _can_retry(failure, idempotent):
                    raise failure
                repeated = repeated or failure.status in _BROKEN_STATUSES
            if not retry:
                raise failure
            retries.wait(failure)


@contextmanager
def reading(content: str) -> Iterator[None]:
    """Report a connection that breaks while a response is read in the block. It is not repeated.

    Args:
        content: What the response is, as the first words of a sentence.
    """
    try:
        yield
    except httpx.TransportError as error:
        cause = str(error) or type(error).__name__
        raise UnreachableError(f"{content} was interrupted, and is not complete ({cause}).") from error


def json_object(response: httpx.Response, *required: str) -> Any:
    """The JSON object of a response, which has the required members.

    Raises:
        UnreachableError: the content has another shape, so another service answers at this address.
    """
    value = _json(response)
    if not _is_object(value, required):
        raise not_promptwire(response)
    return value


def json_list(response: httpx.Response, *required: str) -> Any:
    """The JSON objects of a response that is a list. Raises the errors of `json_object`."""
    value = _json(response)
    if not isinstance(value, list) or not all(_is_object(each, required) for each in value):
        raise not_promptwire(response)
    return value


def not_promptwire(response: httpx.Response) -> UnreachableError:
    """The error for a response that did not come from Promptwire."""
    return UnreachableError(f"The server at {response.url} is not Promptwire's API.")


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError) as error:
        raise not_promptwire(response) from error


def _is_object(value: Any, required: Sequence[str]) -> bool:
    return isinstance(value, dict) and value.keys() >= set(required)


def _timeout(retries: Retries, server_wait: float, stream_timeout: float | None) -> httpx.Timeout:
    """The timeout of one attempt. `server_wait` is added to the time for reading the response."""
    left = max(0.1, retries.seconds_left - server_wait)
    timeout = min(_READ_SECONDS, left)
    read = server_wait + timeout if stream_timeout is None else stream_timeout
    return httpx.Timeout(timeout, connect=min(_CONNECT_SECONDS, left), read=read)


def _can_retry(problem: ProblemError, idempotent: bool) -> bool:
    if problem.status in _BUSY_STATUSES or problem.type == _KEY_IN_USE:
        return True
    return problem.status in _BROKEN_STATUSES and idempotent
