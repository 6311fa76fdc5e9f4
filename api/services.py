"""What an API process holds, built once by the application's factory."""

from dataclasses import dataclass
from functools import partial

from flask import current_app
from sqlalchemy import Engine

from api import postgres_wait
from api.limits import Limits
from api.logins import Logins
from api.offload import offload
from api.relay import Relay
from api.submission import Submissions
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
    autocommit: Engine  #: for what one statement does
    queue: Queue
    announcer: Announcer
    relay: Relay
    limits: Limits
    logins: Logins
    submissions: Submissions
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
    autocommit = connect(autocommit=True)
    redis = make_redis(settings)
    queue, logins = Queue(make_celery(settings), redis), Logins()
    return Services(
        settings=settings,
        sessions=sessions,
        autocommit=autocommit,
        queue=queue,
        announcer=Announcer(redis),
        relay=Relay(redis, autocommit, logins, check_seconds=settings.feed_check_seconds),
        limits=Limits(settings),
        logins=logins,
        submissions=Submissions(settings, sessions, autocommit, queue, redis),
        store=make_store(settings, sessions, autocommit, make_embedders(settings), queue, offload=offload),
    )


def services() -> Services:
    """Those of the running application."""
    found: Services = current_app.extensions[_NAME]
    return found


def attach(extensions: dict[str, object], made: Services) -> None:
    """Makes them what `services()` returns for the application with these extensions."""
    extensions[_NAME] = made
