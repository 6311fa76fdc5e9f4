"""Whether everything can be reached that must be, and nothing that must not."""

import json
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
from kombu.exceptions import KombuError
from redis import RedisError
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

from infra.doctor import Finding, NotCheckedError, Severity
from shared.messaging.queue import make_celery
from shared.settings import Settings

TIMEOUT_SECONDS = 5.0
_MAY_BE_READ = httpx.codes.OK


def public_url(settings: Settings) -> Iterator[Finding]:
    """HTTP and sockets, through whatever proxies there are."""
    url = _required(settings.public_url, "PUBLIC_URL", "the address at which clients reach the API")
    if settings.app_env == "prod" and urlsplit(url).scheme != "https":
        yield Finding(f"PUBLIC_URL is {url}: tokens travel unencrypted.", "Put TLS before the API, and use https.")
    try:
        status = httpx.get(f"{url}/livez/", timeout=TIMEOUT_SECONDS).status_code
    except httpx.HTTPError as error:
        yield Finding(f"{url}/livez/ cannot be reached: {error or type(error).__name__}.", "See whether the API runs.")
        return
    if status != httpx.codes.OK:
        yield Finding(f"{url}/livez/ answers {status}.", "See what stands between the clients and the API.")
        return
    yield from _sockets(url)


def flower(settings: Settings) -> Iterator[Finding]:
    """That nobody sees it without a password."""
    url = _required(settings.flower_url, "FLOWER_URL", "the address of Flower, if you run it")
    try:
        status = httpx.get(f"{url}/api/workers", timeout=TIMEOUT_SECONDS).status_code
    except httpx.HTTPError as error:
        raise NotCheckedError(f"Flower does not answer at {url}: {error or type(error).__name__}") from error
    if status == _MAY_BE_READ:
        yield Finding(
            f"Flower at {url} lets anybody look, and stop workers.",
            "Set FLOWER_BASIC_AUTH=name:password in its environment, and let only your own network reach it.",
        )


def workers(settings: Settings) -> Iterator[Finding]:
    try:
        answers = make_celery(settings).control.ping(timeout=1.5)
    except (KombuError, RedisError, OSError) as error:
        raise NotCheckedError("Redis cannot be used") from error
    if not answers:
        yield Finding("No worker answers: prompts are accepted, and wait.", "Start one: celery -A worker.app worker")


def _sockets(url: str) -> Iterator[Finding]:
    """The room without a name is refused by a message and a close code, which only a real socket brings through."""
    remedy = "Have the proxy pass on Upgrade and Connection (nginx: proxy_http_version 1.1 and both headers)."
    try:
        with connect(url.replace("http", "ws", 1) + "/ws/prompts/", open_timeout=TIMEOUT_SECONDS) as socket:
            answer = json.loads(socket.recv(timeout=TIMEOUT_SECONDS))
    except InvalidStatus as error:
        yield Finding(f"Sockets do not get through to {url}: it answers {error.response.status_code}.", remedy)
        return
    except (WebSocketException, OSError, TimeoutError, ValueError) as error:
        yield Finding(f"Sockets do not get through to {url}: {error or type(error).__name__}.", remedy)
        return
    if "error" not in answer:
        yield Finding(f"Something else than Promptwire answers sockets at {url}.", remedy, Severity.WRONG)


def _required(url: str, name: str, what: str) -> str:
    if not url:
        raise NotCheckedError(f"{name} is not set: {what}")
    return url.rstrip("/")
