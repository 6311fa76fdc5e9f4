"""Requests to the identity provider, bounded in time and size.

Under gevent a request that waits lets other requests run. Its time limit holds for the whole response, so that a
provider that sends a byte now and then cannot prolong it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import httpx
from pydantic_core import from_json

from api.auth.oidc.errors import ProviderUnavailableError
from shared.providers import interruption
from shared.providers.interruptible_transport import make_interruptible
from shared.providers.interruption import Interruption

MAX_SECONDS = 10.0
MAX_BYTES = 256 * 1024
#: Uncompressed, because a small compressed response may be large.
_JSON = {"Accept": "application/json", "Accept-Encoding": "identity"}


def fetch_json(
    method: str, url: str, *, max_seconds: float = MAX_SECONDS, headers: dict[str, str] | None = None, **options: Any
) -> tuple[int, dict[str, Any]]:
    """Send a request. Returns the status and the JSON object of the response. Redirects are not followed.

    Raises:
        ProviderUnavailableError: there is no such response, or it takes too long or is too large.
    """
    try:
        with (
            _interrupted_after(max_seconds),
            _client(max_seconds) as client,
            client.stream(method, url, headers=_JSON | (headers or {}), **options) as response,
        ):
            body, status = _read(response), response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # ValueError: a host or header not sent
        raise ProviderUnavailableError(f"{_place(url)} does not answer: {error or type(error).__name__}.") from error
    try:
        value = from_json(body)
    except ValueError as error:
        raise ProviderUnavailableError(f"{_place(url)} answers {status} without JSON.") from error
    if not isinstance(value, dict):
        raise ProviderUnavailableError(f"{_place(url)} does not answer with a JSON object.")
    return status, value


def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    for part in response.iter_raw():
        body += part
        if len(body) > MAX_BYTES:
            raise httpx.DecodingError(f"the response has more than {MAX_BYTES} bytes")
    return bytes(body)


def _client(max_seconds: float) -> httpx.Client:
    return make_interruptible(httpx.Client(verify=_tls_context(), timeout=max_seconds, follow_redirects=False))


@cache
def _tls_context() -> Any:
    return httpx.create_ssl_context()  # 10 ms


@contextmanager
def _interrupted_after(seconds: float) -> Iterator[None]:
    """Raise TimeoutError from what waits for the network in this block after these seconds."""
    limit = Interruption()
    timer = threading.Timer(seconds, limit.set, [TimeoutError(f"it took more than {seconds:g} s")])
    timer.daemon = True
    timer.start()
    try:
        with interruption.attached(limit):
            yield
    finally:
        timer.cancel()


def _place(url: str) -> str:
    """The URL without its query, which the log must not have."""
    return url.partition("?")[0]
