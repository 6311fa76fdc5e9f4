"""Checks of the network: the workers answer, and Flower asks for a password."""

from collections.abc import Iterator

import httpx
from kombu.exceptions import KombuError
from redis import RedisError

from infra.doctor import Finding, NotCheckedError
from infra.doctor.stores import connect
from shared.db import migrations
from shared.messaging.queue import make_celery, queue_name
from shared.prompts import overdue
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
    """At least one worker answers, and each model has one."""
    try:
        answers = make_celery(settings).control.inspect(timeout=1.5).active_queues()
    except (KombuError, RedisError, OSError) as error:
        raise NotCheckedError("Redis is unavailable") from error
    if not answers:
        yield Finding(
            "No worker answers: prompts are accepted but stay queued.", "Start one: celery -A worker.app worker"
        )
        return
    consumed = {queue["name"] for queues in answers.values() for queue in queues}
    for route in settings.models:
        if queue_name(route) not in consumed:
            yield Finding(
                f"No worker answers the model {route}: its prompts are accepted but stay queued.",
                "Start one with it in its WORKER_MODELS and MODELS_FILE, or restart those that run.",
            )


def models(settings: Settings) -> Iterator[Finding]:
    """No prompts wait for a model that MODELS_FILE no longer has."""
    with connect(settings) as connection:
        if not migrations.is_current(connection):
            raise NotCheckedError("the database schema does not match")
        gone = overdue.find_gone_models(connection, list(settings.models))
    for route in gone:
        yield Finding(
            f"Prompts wait for the model {route}, which is not there (any more).",
            f"Put it back into MODELS_FILE: else they fail after PROVIDER_PATIENCE_SECONDS "
            f"({settings.provider_patience_seconds:g}).",
        )
