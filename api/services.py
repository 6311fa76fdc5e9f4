"""What an API process holds, built once by the application's factory."""

from dataclasses import dataclass

from flask import current_app

from api import postgres_wait
from api.limits import Limits
from api.offload import offload
from api.relay import Relay
from shared.database import Sessions, make_engine, make_sessions
from shared.events import Announcer
from shared.providers import Embedder, make_embedder
from shared.queue import Queue, make_celery
from shared.redis import make_redis
from shared.search.replicas import Replicas
from shared.settings import Settings

_NAME = "promptwire"


@dataclass(frozen=True)
class Services:
    """Everything that a route needs."""

    settings: Settings
    sessions: Sessions
    queue: Queue
    announcer: Announcer
    relay: Relay
    limits: Limits
    embedder: Embedder
    replicas: Replicas


def make_services(settings: Settings) -> Services:
    """Builds them. Nothing is connected yet; `relay.start()` begins to listen."""
    engine = make_engine(
        settings, application_name="promptwire-api", statement_timeout_ms=postgres_wait.STATEMENT_TIMEOUT_MS
    )
    sessions = make_sessions(engine)
    redis = make_redis(settings)
    embedder = make_embedder(settings)
    return Services(
        settings=settings,
        sessions=sessions,
        queue=Queue(make_celery(settings), redis),
        announcer=Announcer(redis),
        relay=Relay(redis, sessions, check_seconds=settings.feed_check_seconds),
        limits=Limits(settings),
        embedder=embedder,
        replicas=Replicas(sessions, embedder, memory_mib=settings.search_memory_mib, offload=offload),
    )


def services() -> Services:
    """Those of the running application."""
    found: Services = current_app.extensions[_NAME]
    return found


def attach(extensions: dict[str, object], made: Services) -> None:
    """Makes them what `services()` returns for the application with these extensions."""
    extensions[_NAME] = made
