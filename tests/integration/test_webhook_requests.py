"""Requests to webhooks: checked addresses, bounded time and bytes, whatever the receiver does."""

import asyncio
import os
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from tests.support.servers import MAX_WAIT_SECONDS
from worker.webhooks.network import CheckedBackend, LookUp
from worker.webhooks.network import look_up as network_look_up
from worker.webhooks.receiver import Receiver, Response

_HEAD = b"HTTP/1.1 200 OK\r\n"
#: Requests that nothing answers take this long. The others end sooner.
_SHORT = 0.3
_LOCAL: LookUp = lambda host, port: ["127.0.0.1"]  # noqa: E731

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _server(handle: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server whose connections end with the block. Yields its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            await handle(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)


def _replying(*pieces: bytes, pause: float = 0.0, ends: bool = True) -> Handler:
    """A server that answers with these pieces, with a pause after each, and then closes the connection or is silent."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        if not ends:
            await reader.read()

    return handle


async def _post(
    port: int,
    *,
    host: str = "hook.example",
    scheme: str = "http",
    look_up: LookUp = _LOCAL,
    allow_private: bool = True,
    tls: ssl.SSLContext | None = None,
    timeout: float = MAX_WAIT_SECONDS,
) -> Response:
    backend = CheckedBackend(allow_private=allow_private, look_up=look_up)
    receiver = Receiver(f"{scheme}://{host}:{port}/", backend, tls or ssl.create_default_context(), timeout)
    try:
        return await receiver.post("{}", {})
    finally:
        await receiver.close()


def _answer_to(handle: Handler, **options: object) -> Response:
    async def run() -> Response:
        async with _server(handle) as port:
            return await _post(port, **options)

    return asyncio.run(run())


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(status: int) -> None:
    response = _answer_to(_replying(f"HTTP/1.1 {status} Status\r\nContent-Length: 0\r\n\r\n".encode()))
    assert (response.status, response.error, response.is_success) == (status, None, True)


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 400, 401, 404, 410, 429, 500, 503, 599])
def test_any_other_status_is_a_failure(status: int) -> None:
    reply = f"HTTP/1.1 {status} Status\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
    response = _answer_to(_replying(reply.encode()))
    assert (response.status, response.is_success) == (status, False)
    assert response.error.startswith(f"The endpoint answered {status}")


@pytest.mark.parametrize(
    "reply",
    [
        _HEAD + b"Content-Length: 1000000000\r\n\r\n" + b"x" * 500_000,
        _HEAD + b"\r\n" + b"x" * 500_000,
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100_000,
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\nnot a chunk\r\n",
        _HEAD + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbomb",
        _HEAD + b"Content-Length: 10\r\n\r\ncut",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3 + _HEAD + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nold",
    ],
    ids=["long", "endless", "small chunks", "bad chunk", "compressed", "cut", "interim responses", "HTTP/1.0"],
)
def test_a_body_is_ignored_and_only_read_in_part(reply: bytes) -> None:
    response = _answer_to(_replying(reply))
    assert response.is_success
    assert response.seconds < MAX_WAIT_SECONDS / 2


def test_a_body_that_never_ends_is_not_waited_for() -> None:
    response = _answer_to(_replying(_HEAD + b"Content-Length: 100\r\n\r\nx", ends=False))
    assert response.is_success


@pytest.mark.parametrize(
    "handle",
    [
        _replying(ends=False),
        _replying(*(bytes([byte]) for byte in _HEAD + b"X: " + b"x" * 500), pause=0.05),
        _replying(*[b"HTTP/1.1 100 Continue\r\n\r\n"] * 500, pause=0.05),
    ],
    ids=["silence", "byte by byte", "interim responses"],
)
def test_a_response_that_does_not_come_in_time_is_a_failure(handle: Handler) -> None:
    response = _answer_to(handle, timeout=_SHORT)
    assert (response.status, response.error) == (None, "No response within 0.3 s.")


_NO_HTTP = "The endpoint closed the connection, or did not answer with HTTP."


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", _NO_HTTP),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", _NO_HTTP),
        (b"HTTP/1.1 200", _NO_HTTP),
        (b"HTTP/1.1 99999 OK\r\n\r\n", _NO_HTTP),
        (
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            _NO_HTTP,
        ),
        (_HEAD + b"X: " + b"x" * 300_000, "The response has more than 64 KiB."),
        (b"HTTP/1.1 103 Hints\r\nX: " + b"x" * 2_000 + b"\r\n\r\n", "The response has more than 64 KiB."),
    ],
    ids=["nothing", "no HTTP", "cut", "bad status", "switching protocols", "huge header", "many interim responses"],
)
def test_a_malformed_or_oversized_response_is_a_failure(reply: bytes, error: str) -> None:
    response = _answer_to(_replying(*[reply] * (200 if b"103" in reply else 1)))
    assert (response.status, response.error) == (None, error)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],  # noqa: S104
        ["::1"],
        ["::"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["2002:7f00:1::1"],
        ["fe80::1%lo"],
        ["fd00::1"],
        ["8.8.8.8", "127.0.0.1"],
        ["2606:4700::1", "192.168.0.1"],
    ],
)
def test_a_name_that_leads_to_a_private_address_is_refused_before_connecting(addresses: list[str]) -> None:
    connections: list[int] = []

    async def handle(_: object, __: object) -> None:
        connections.append(1)

    response = _answer_to(handle, look_up=lambda host, port: addresses, allow_private=False)
    assert (response.status, response.error) == (None, "The host has an address that is not public.")
    assert not connections


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "0", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
def test_a_host_that_the_system_takes_for_a_private_address_is_refused_before_connecting(host: str) -> None:
    response = asyncio.run(_post(9, host=host, allow_private=False, look_up=network_look_up))
    assert response.error in ("The host has an address that is not public.", "The host's name has no address.")


def test_a_name_is_resolved_once_for_a_connection_and_checked_again_for_the_next() -> None:
    """DNS rebinding: the name has a public address when it is checked, and a private one afterwards."""
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    asked: list[str] = []
    hosts: list[bytes] = []

    def look_up(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return next(answers)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            hosts.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[1])
            await reader.readexactly(2)
            writer.write(_HEAD + b"Content-Length: 0\r\n\r\n")

    async def run() -> list[Response]:
        async with _server(handle) as port:
            backend = CheckedBackend(allow_private=True, look_up=look_up)
            receiver = Receiver(f"http://rebinding.example:{port}/", backend, ssl.create_default_context())
            responses = [await receiver.post("{}", {}) for _ in range(2)]
            assert asked == ["rebinding.example"]  # one connection
            backend._allow_private = False
            responses.append(await receiver.post("{}", {}))  # on another one
            return responses

    first, second, third = asyncio.run(run())
    assert first.is_success
    assert second.is_success
    assert third.error == "The host has an address that is not public."
    assert asked == ["rebinding.example"] * 2
    assert all(line.startswith(b"Host: rebinding.example:") for line in hosts)


def test_1_000_names_that_never_resolve_delay_no_other_endpoint() -> None:
    is_over = threading.Event()

    def look_up(host: str, port: int) -> Sequence[str]:
        if host != "hook.example":
            is_over.wait(MAX_WAIT_SECONDS)
        return ["127.0.0.1"]

    async def run() -> Response:
        async with _server(_replying(_HEAD + b"Content-Length: 0\r\n\r\n")) as port:
            backend = CheckedBackend(allow_private=True, look_up=look_up)
            tls = ssl.create_default_context()
            hosts = [*(f"hanging-{i}.example" for i in range(1_000)), "hook.example"]
            receivers = [Receiver(f"http://{host}:{port}/", backend, tls) for host in hosts]
            hanging = [asyncio.create_task(receiver.post("{}", {})) for receiver in receivers[:-1]]
            await asyncio.sleep(0)
            try:
                return await receivers[-1].post("{}", {})
            finally:
                is_over.set()
                await asyncio.gather(*hanging)
                await asyncio.gather(*(receiver.close() for receiver in receivers))

    assert asyncio.run(run()).is_success


def test_an_address_that_refuses_is_followed_by_the_next() -> None:
    async def run() -> Response:
        async with _server(_replying(_HEAD + b"Content-Length: 0\r\n\r\n")) as port:
            return await _post(port, look_up=lambda host, _: ["127.0.0.9", "::1", "127.0.0.1"])

    assert asyncio.run(run()).is_success


def test_the_certificate_must_be_valid_and_for_the_name(tls: ssl.SSLContext, certificate: Path) -> None:
    known = ssl.create_default_context(cafile=str(certificate))

    async def run(host: str, context: ssl.SSLContext) -> Response:
        async with _server(_replying(_HEAD + b"Content-Length: 0\r\n\r\n"), tls) as port:
            return await _post(port, host=host, scheme="https", tls=context)

    assert asyncio.run(run("localhost", known)).is_success
    unknown = asyncio.run(run("localhost", ssl.create_default_context()))
    assert unknown.error.startswith("The certificate is not valid: ")
    other = asyncio.run(run("hook.example", known))
    assert other.error.startswith("The certificate is not valid: Hostname mismatch")


def test_a_port_without_tls_fails_the_handshake() -> None:
    async def handle(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    response = _answer_to(handle, scheme="https")
    assert (response.status, response.error) == (None, "The TLS handshake failed: WRONG_VERSION_NUMBER.")


def test_a_kept_connection_that_the_receiver_has_closed_is_replaced() -> None:
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(2)
        writer.write(_HEAD + b"Content-Length: 0\r\n\r\n")
        if len(connections) == 1:  # it closes the connection as soon as it is used again
            await reader.readuntil(b"\r\n\r\n")

    async def run() -> list[Response]:
        async with _server(handle) as port:
            receiver = Receiver(
                f"http://hook.example:{port}/",
                CheckedBackend(allow_private=True, look_up=_LOCAL),
                ssl.create_default_context(),
            )
            responses = [await receiver.post("{}", {}) for _ in range(2)]
            await receiver.close()
            return responses

    assert [response.status for response in asyncio.run(run())] == [200, 200]
    assert len(connections) == 2


def test_an_event_is_sent_once_to_a_receiver_whose_204_has_a_body() -> None:
    received: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            received.append(await reader.readexactly(3))
            writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\ndone")

    async def run() -> None:
        async with _server(handle) as port:
            backend = CheckedBackend(allow_private=True, look_up=_LOCAL)
            receiver = Receiver(f"http://hook.example:{port}/", backend, ssl.create_default_context())
            for number in range(3):
                assert (await receiver.post(f"[{number}]", {})).is_success
            await receiver.close()

    asyncio.run(run())
    assert received == [b"[0]", b"[1]", b"[2]"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_that_timed_out_is_closed_although_a_forked_process_has_a_copy_of_it(scheme: str) -> None:
    """A receiver that serves one connection at a time would wait for its end."""
    ends: list[bytes] = []

    async def run() -> Response:
        is_over = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, _: object) -> None:
            copies.extend(_copies_of_connections(port))
            while await reader.read(65_536):
                pass
            ends.append(b"")
            is_over.set()

        copies: list[int] = []
        async with _server(handle) as port:
            response = await _post(port, scheme=scheme, timeout=_SHORT)
            try:
                async with asyncio.timeout(MAX_WAIT_SECONDS):
                    await is_over.wait()
            finally:
                for copy in copies:
                    os.close(copy)
        return response

    assert asyncio.run(run()).error == "No response within 0.3 s."
    assert ends


def _copies_of_connections(port: int) -> list[int]:
    """Copies of this process' connections to a port, such as a fork makes."""
    connections = psutil.Process().net_connections("tcp4")
    return [os.dup(each.fd) for each in connections if each.raddr and each.raddr.port == port]
