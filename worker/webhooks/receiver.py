"""Sending requests to a webhook's URL."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import NamedTuple

import httpcore
import httpx
import structlog

from shared.retry_after import retry_after
from shared.version import get_version
from worker.webhooks.network import MAX_RESPONSE_BYTES, AddressRefusedError, CheckedBackend, ResponseTooLargeError

log = structlog.get_logger(__name__)

#: For a delivery in all: looking the name up, connecting, TLS, sending, and the head of the response.
TIMEOUT_SECONDS = 10.0
#: How long the rest of a response is read, so that the connection can be used again.
BODY_SECONDS = 1.0
_KEEP_ALIVE_SECONDS = 5.0
_MAX_ERROR_CHARACTERS = 300


class Response(NamedTuple):
    """The result of a request: a status, or an error for the webhook's user."""

    status: int | None
    error: str | None
    retry_after: float | None  #: seconds
    seconds: float

    @property
    def is_success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Receiver:
    """A webhook's URL, and a connection to it that is kept between requests.

    Redirects are not followed, cookies are not kept, and proxies and credentials of the environment are not used.
    """

    def __init__(
        self, url: str, backend: CheckedBackend, tls: ssl.SSLContext, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        self.url = url
        self._timeout = timeout
        self._backend = backend
        self._tls = tls
        parsed = httpx.URL(url)
        self._target = httpcore.URL(
            scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port, target=parsed.raw_path
        )
        self._headers = [
            (b"Host", parsed.netloc),
            (b"User-Agent", f"Promptwire/{get_version()}".encode()),
            (b"Accept", b"*/*"),
            (b"Content-Type", b"application/json"),
        ]
        self._connection: httpcore.AsyncHTTPConnection | None = None

    async def post(self, body: str, headers: Mapping[str, str]) -> Response:
        """Send a body of JSON."""
        started = time.monotonic()
        status, error, wait = None, None, None
        content = body.encode()
        fields = [*self._headers, (b"Content-Length", b"%d" % len(content))]
        fields += [(name.encode(), value.encode()) for name, value in headers.items()]
        try:
            async with asyncio.timeout(self._timeout):
                response = await self._send(content, fields)
            status = response.status
            wait = retry_after({name.decode().lower(): value.decode("latin-1") for name, value in response.headers})
            error = None if 200 <= status < 300 else _describe_status(status)
            await self._discard_body(response)
        except TimeoutError:
            error = f"No response within {self._timeout:g} s."
            await self.close()
        except Exception as failure:
            if not isinstance(failure, httpcore.NetworkError | httpcore.ProtocolError):
                log.exception("webhook request failed")
            error = _describe(failure)
            await self.close()
        return Response(status, error, wait, time.monotonic() - started)

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(httpcore.NetworkError, OSError):
                await connection.aclose()

    async def _send(self, content: bytes, headers: list[tuple[bytes, bytes]]) -> httpcore.Response:
        request = httpcore.Request("POST", self._target, headers=headers, content=content)
        if self._connection is not None:
            if self._connection.is_available() and not self._connection.has_expired():
                # The server may just have closed the connection. What it gets twice has the same `webhook-id`.
                with suppress(httpcore.NetworkError, httpcore.RemoteProtocolError):
                    return await self._connection.handle_async_request(request)
            await self.close()
        self._connection = httpcore.AsyncHTTPConnection(
            self._target.origin, self._tls, _KEEP_ALIVE_SECONDS, network_backend=self._backend
        )
        return await self._connection.handle_async_request(request)

    async def _discard_body(self, response: httpcore.Response) -> None:
        """Read the body and ignore it: only the status counts."""
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for _ in response.aiter_stream():
                    pass
                await response.aclose()
            if response.status == HTTPStatus.NO_CONTENT and _announces_body(response):
                await self.close()  # the body that a 204 cannot have would be taken for the next response
        except (TimeoutError, httpcore.NetworkError, httpcore.ProtocolError):
            await self.close()


def _announces_body(response: httpcore.Response) -> bool:
    headers = {name.lower(): value for name, value in response.headers}
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def _describe_status(status: int) -> str:
    if 300 <= status < 400:
        return f"The endpoint answered {status}, and redirects are not followed."
    return f"The endpoint answered {status}."


def _describe(failure: Exception) -> str:
    """Say what went wrong, without addresses: names may have other addresses inside the service's network."""
    for cause in _causes(failure):
        if isinstance(cause, AddressRefusedError):
            return "The host has an address that is not public."
        if isinstance(cause, ResponseTooLargeError):
            return f"The response has more than {MAX_RESPONSE_BYTES // 1024} KiB."
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"The certificate is not valid: {cause.verify_message}."[:_MAX_ERROR_CHARACTERS]
        if isinstance(cause, ssl.SSLError):
            return f"The TLS handshake failed: {cause.reason or 'unknown error'}."[:_MAX_ERROR_CHARACTERS]
        if isinstance(cause, socket.gaierror):
            return "The host's name has no address."
        if isinstance(cause, ConnectionRefusedError):
            return "The endpoint refused the connection."
    if isinstance(failure, httpcore.ProtocolError):
        return "The endpoint closed the connection, or did not answer with HTTP."
    if isinstance(failure, httpcore.ReadError | httpcore.WriteError):
        return "The connection was interrupted."
    return "The endpoint could not be reached."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
