"""Checks of the network: the workers answer, and Flower asks for a password."""

from collections.abc import Iterator

import httpx
from kombu.exceptions import KombuError
from redis import RedisError

from infra.doctor import Finding, NotCheckedError
from shared.messaging.queue import make_celery
from shared.settings import Settings

TIMEOUT_SECONDS = 5.0
_FLOWER_PATHS = ("/api/workers", "/metrics")


def flower(settings: Settings) -> Iterator[Finding]:
    """Flower shows nothing without a password."""
    if not settings.flower_url:
        raise NotCheckedError("FLOWER_URL is not set: the address of Flower, if you run it")
    url = settings.flower_url.rstrip("/")
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
