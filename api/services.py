"""What an API process holds, built once by the application's factory."""

from dataclasses import dataclass
from functools import partial

from flask import current_app
from prometheus_client import Gauge
from sqlalchemy import Engine

from api.auth.token_cache import TokenCache
from api.http.rate_limits import Limits
from api.intake.submissions import Submissions
from api.realtime.fair_semaphore import Turns
from api.realtime.relay import Relay
from api.server import gevent_psycopg2
from api.server.threadpool import offload
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.messaging.announcements import Announcer
from shared.messaging.partial_text import PartialText
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.providers.factory import make_embedders
from shared.search.factory import make_store
from shared.search.store import VectorStore
from shared.settings import Settings
from shared.telemetry import metrics
from shared.telemetry.sampler import Look, engine_gauges
from shared.telemetry.service_metrics import ServiceMetrics

_NAME = "promptwire"
MAX_CONCURRENT_READS = 4


@dataclass(frozen=True)
class Services:
    """Everything that a route needs."""

    settings: Settings
    sessions: Sessions
    autocommit_engine: Engine  #: for what one statement does
    queue: Queue
    announcer: Announcer
    running: PartialText
    relay: Relay
    limits: Limits
    logins: TokenCache
    submissions: Submissions
    store: VectorStore
    #: Sockets and streams that ask the database at the same time: the others wait in line, so that ten thousand who
    #: come back at once neither run into the pool's timeout nor keep requests from it.
    db_slots: Turns
    service_metrics: ServiceMetrics


def make_services(settings: Settings) -> Services:
    """Builds them. Nothing is connected yet; `relay.start()` begins to listen."""
    connect = partial(
        make_engine,
        settings,
        application_name="promptwire-api",
        statement_timeout_ms=gevent_psycopg2.STATEMENT_TIMEOUT_MS,
    )
    sessions = make_sessions(connect())
    autocommit_engine = connect(autocommit=True)
    redis = make_redis(settings)
    queue, logins = Queue(make_celery(settings), redis), TokenCache()
    return Services(
        settings=settings,
        sessions=sessions,
        autocommit_engine=autocommit_engine,
        queue=queue,
        announcer=Announcer(redis),
        running=PartialText(redis, settings.partial_text_lifetime),
        relay=Relay(redis, autocommit_engine, logins, check_seconds=settings.feed_check_seconds),
        limits=Limits(settings),
        logins=logins,
        submissions=Submissions(settings, sessions, autocommit_engine, queue, redis),
        db_slots=Turns(MAX_CONCURRENT_READS),
        store=make_store(settings, sessions, autocommit_engine, make_embedders(settings), queue, offload=offload),
        service_metrics=ServiceMetrics(autocommit_engine, queue),
    )


def gauges(services: Services) -> dict[Gauge, Look]:
    """What is looked at once a second in an API process."""
    engines = engine_gauges(services.sessions.kw["bind"], services.autocommit_engine)
    return {**engines, metrics.replica_bytes: lambda: services.store.nbytes}


def services() -> Services:
    """Those of the running application."""
    found: Services = current_app.extensions[_NAME]
    return found


def attach(extensions: dict[str, object], made: Services) -> None:
    """Makes them what `services()` returns for the application with these extensions."""
    extensions[_NAME] = made
