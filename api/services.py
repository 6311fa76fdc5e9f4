"""What an API process holds, built once by the application's factory."""

from dataclasses import dataclass
from functools import partial

from flask import current_app

from api import postgres_wait
from api.limits import Limits
from api.offload import offload
from api.relay import Relay
from shared.database import Sessions, make_engine, make_sessions
from shared.events import Announcer
from shared.providers import make_embedders
from shared.queue import Queue, make_celery
from shared.redis import make_redis
from shared.search.factory import make_store
from shared.search.store import VectorStore
from shared.settings import Settings

_NAME = "promptwire"


@dataclass(frozen=True)
class Services:
    """Everything that a route needs."""

    settings: Settings
    sessions: Sessions
    reading: Sessions  #: in autocommit: for requests that ask the database one thing
    queue: Queue
    announcer: Announcer
    relay: Relay
    limits: Limits
    store: VectorStore


def make_services(settings: Settings) -> Services:
    """Builds them. Nothing is connected yet; `relay.start()` begins to listen."""
    connect = partial(
        make_engine,
        settings,
        application_name="promptwire-api",
        statement_timeout_ms=postgres_wait.STATEMENT_TIMEOUT_MS,
    )
    sessions = make_sessions(connect())
    reading = connect(autocommit=True)
    redis = make_redis(settings)
    queue = Queue(make_celery(settings), redis)
    return Services(
        settings=settings,
        sessions=sessions,
        reading=make_sessions(reading),
        queue=queue,
        announcer=Announcer(redis),
        relay=Relay(redis, sessions, check_seconds=settings.feed_check_seconds),
        limits=Limits(settings),
        store=make_store(settings, sessions, reading, make_embedders(settings), queue, offload=offload),
    )


def services() -> Services:
    """Those of the running application."""
    found: Services = current_app.extensions[_NAME]
    return found


def attach(extensions: dict[str, object], made: Services) -> None:
    """Makes them what `services()` returns for the application with these extensions."""
    extensions[_NAME] = made
