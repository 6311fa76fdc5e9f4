"""What an API process holds, built once by the application's factory."""

from dataclasses import dataclass
from functools import partial

from flask import current_app
from prometheus_client import Gauge
from sqlalchemy import Engine

from api import postgres_wait
from api.limits import Limits
from api.logins import Logins
from api.offload import offload
from api.relay import Relay
from api.submission import Submissions
from api.turns import Turns
from api.vitals import Vitals
from shared.database import Sessions, make_engine, make_sessions
from shared.events import Announcer
from shared.providers.factory import make_embedders
from shared.queue import Queue, make_celery
from shared.redis import make_redis
from shared.running_text import RunningText
from shared.search.factory import make_store
from shared.search.store import VectorStore
from shared.settings import Settings
from shared.telemetry import metrics
from shared.telemetry.sampler import Look, of_engines

_NAME = "promptwire"
TURNS = 4


@dataclass(frozen=True)
class Services:
    """Everything that a route needs."""

    settings: Settings
    sessions: Sessions
    autocommit: Engine  #: for what one statement does
    queue: Queue
    announcer: Announcer
    running: RunningText
    relay: Relay
    limits: Limits
    logins: Logins
    submissions: Submissions
    store: VectorStore
    #: Sockets and streams that ask the database at the same time: the others wait in line, so that ten thousand who
    #: come back at once neither run into the pool's timeout nor keep requests from it.
    turns: Turns
    vitals: Vitals


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
        running=RunningText(redis, settings.running_text_lifetime),
        relay=Relay(redis, autocommit, logins, check_seconds=settings.feed_check_seconds),
        limits=Limits(settings),
        logins=logins,
        submissions=Submissions(settings, sessions, autocommit, queue, redis),
        turns=Turns(TURNS),
        store=make_store(settings, sessions, autocommit, make_embedders(settings), queue, offload=offload),
        vitals=Vitals(autocommit, queue),
    )


def gauges(services: Services) -> dict[Gauge, Look]:
    """What is looked at once a second in an API process."""
    engines = of_engines(services.sessions.kw["bind"], services.autocommit)
    return {**engines, metrics.replica_bytes: lambda: services.store.nbytes}


def services() -> Services:
    """Those of the running application."""
    found: Services = current_app.extensions[_NAME]
    return found


def attach(extensions: dict[str, object], made: Services) -> None:
    """Makes them what `services()` returns for the application with these extensions."""
    extensions[_NAME] = made
