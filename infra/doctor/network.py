"""Checks of the network: the API, its WebSockets and the workers answer; Flower asks for a password."""

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
from kombu.exceptions import KombuError
from redis import RedisError
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from infra.doctor import Finding, NotCheckedError
from shared.messaging.queue import make_celery
from shared.settings import Settings

TIMEOUT_SECONDS = 5.0
_FLOWER_PATHS = ("/api/workers", "/metrics")


def public_url(settings: Settings) -> Iterator[Finding]:
    """HTTP and WebSockets work at the public URL, through all proxies."""
    url = _required(settings.public_url, "PUBLIC_URL", "the address at which clients reach the API")
    if settings.app_env == "prod" and urlsplit(url).scheme != "https":
        yield Finding(
            f"PUBLIC_URL is {url}: tokens travel unencrypted.",
            "Terminate TLS in front of the API, and use an https URL.",
        )
    try:
        status = httpx.get(f"{url}/livez/", timeout=TIMEOUT_SECONDS).status_code
    except httpx.HTTPError as error:
        yield Finding(
            f"{url}/livez/ cannot be reached: {error or type(error).__name__}.",
            "Check that the API runs and that PUBLIC_URL is right.",
        )
        return
    if status != httpx.codes.OK:
        yield Finding(f"{url}/livez/ answers {status}, not 200.", "Check the proxies between the clients and the API.")
        return
    yield from _sockets(url)


def flower(settings: Settings) -> Iterator[Finding]:
    """Flower shows nothing without a password."""
    url = _required(settings.flower_url, "FLOWER_URL", "the address of Flower, if you run it")
    remedy = "Start it with `python -m worker.flower`, and allow access from your own network only."
    try:
        statuses = {path: httpx.get(f"{url}{path}", timeout=TIMEOUT_SECONDS).status_code for path in _FLOWER_PATHS}
    except httpx.HTTPError as error:
        raise NotCheckedError(f"Flower does not answer at {url}: {error or type(error).__name__}") from error
    if statuses["/api/workers"] == httpx.codes.OK:
        yield Finding(f"Flower at {url} has no password: anyone can read all tasks and stop workers.", remedy)
    elif statuses["/metrics"] == httpx.codes.OK:
        yield Finding(f"{url}/metrics has no password: anyone can read the names of workers and tasks.", remedy)


def workers(settings: Settings) -> Iterator[Finding]:
    """At least one worker answers."""
    try:
        answers = make_celery(settings).control.ping(timeout=1.5)
    except (KombuError, RedisError, OSError) as error:
        raise NotCheckedError("Redis is unavailable") from error
    if not answers:
        yield Finding(
            "No worker answers: prompts are accepted but stay queued.", "Start one: celery -A worker.app worker"
        )


def _sockets(url: str) -> Iterator[Finding]:
    """Join the room without a name. The API refuses it with a message, which arrives only over a working WebSocket."""
    remedy = "Let the proxy forward Upgrade and Connection (nginx: proxy_http_version 1.1 and both headers)."
    try:
        with connect(url.replace("http", "ws", 1) + "/ws/prompts/", open_timeout=TIMEOUT_SECONDS) as socket:
            answer = json.loads(socket.recv(timeout=TIMEOUT_SECONDS))
    except InvalidStatus as error:
        yield Finding(f"WebSockets do not work at {url}: it answers {error.response.status_code}.", remedy)
        return
    except (WebSocketException, OSError, TimeoutError, ValueError) as error:
        yield Finding(f"WebSockets do not work at {url}: {error or type(error).__name__}.", remedy)
        return
    if "error" not in answer:
        yield Finding(f"The WebSocket at {url} is not answered by Promptwire.", remedy)


def _required(url: str, name: str, what: str) -> str:
    if not url:
        raise NotCheckedError(f"{name} is not set: {what}")
    return url.rstrip("/")
