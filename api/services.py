"""The services of an API process. `create_app` hands each route what it needs of them."""

from dataclasses import dataclass
from functools import partial

from flask_limiter import Limiter
from prometheus_client import Gauge
from sqlalchemy import Engine

from api.auth.failed_logins import FailedLogins
from api.auth.key_uses import KeyUses
from api.auth.token_cache import TokenCache
from api.auth.tokens import Authenticator
from api.http.rate_limits import SIGN_IN_REQUESTS_PER_BLOCK, AddressLimiter, make_registration_limiter
from api.intake.submissions import Submissions
from api.intake.user_slots import UserLimits
from api.realtime.fair_semaphore import FairSemaphore
from api.realtime.relay import Relay
from api.server import gevent_psycopg2
from api.server.dependency_checks import DependencyChecks
from api.server.threadpool import SEARCH_THREADS, NativeThreads
from shared.db.engine import Sessions, make_engine, make_sessions
from shared.messaging.announcements import Announcer
from shared.messaging.partial_text import PartialText
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.providers import Embedders
from shared.providers.factory import make_embedders
from shared.search.factory import make_store
from shared.search.prompt_search import PromptSearch
from shared.search.store import VectorStore
from shared.search.vector_backfill import VectorBackfill
from shared.search.words.word_index import WordIndex
from shared.search.words.word_writer import WordWriter
from shared.settings import Settings
from shared.telemetry import metrics
from shared.telemetry.sampler import Probe, engine_gauges
from shared.telemetry.service_metrics import ServiceMetrics

MAX_CONCURRENT_READS = 4


@dataclass(frozen=True)
class Services:
    """What the routes are built from."""

    settings: Settings
    sessions: Sessions
    autocommit_engine: Engine  #: for single statements
    queue: Queue
    announcer: Announcer
    partial_text: PartialText
    relay: Relay
    authenticator: Authenticator
    token_cache: TokenCache
    failed_logins: FailedLogins
    registration_limiter: Limiter
    sign_in_limiter: AddressLimiter
    submissions: Submissions
    user_limits: UserLimits
    embedders: Embedders
    store: VectorStore
    search: PromptSearch
    search_threads: NativeThreads
    #: Limits how many sockets and streams query the database at the same time. The others queue, so that ten thousand
    #: that reconnect at once neither run into the pool's timeout nor take its connections from requests.
    db_slots: FairSemaphore
    service_metrics: ServiceMetrics
    dependency_checks: DependencyChecks


def make_services(settings: Settings) -> Services:
    """Build the services. Nothing connects yet; `relay.start()` starts listening."""
    connect = partial(
        make_engine,
        settings,
        application_name="promptwire-api",
        statement_timeout_ms=gevent_psycopg2.STATEMENT_TIMEOUT_MS,
    )
    sessions = make_sessions(connect())
    autocommit_engine = connect(autocommit=True)
    redis = make_redis(settings)
    queue, announcer, token_cache = Queue(make_celery(settings), redis), Announcer(redis), TokenCache()
    search_threads = NativeThreads(SEARCH_THREADS)
    embedders = make_embedders(settings)
    store = make_store(settings, sessions, autocommit_engine, embedders, queue, offload=search_threads.offload)
    backfill = VectorBackfill(sessions, embedders, store, offload=search_threads.offload)
    words = WordIndex(WordWriter(sessions, search_threads.offload), autocommit_engine)
    return Services(
        settings=settings,
        sessions=sessions,
        autocommit_engine=autocommit_engine,
        queue=queue,
        announcer=announcer,
        partial_text=PartialText(redis, settings.partial_text_lifetime),
        # With a connection pool of its own: several greenlets use the subscription's connection, and after a failure
        # the pool must not hand it to a request while one of them still uses it.
        relay=Relay(make_redis(settings), autocommit_engine, token_cache, check_seconds=settings.feed_check_seconds),
        authenticator=Authenticator(settings, autocommit_engine, token_cache, KeyUses(autocommit_engine), announcer),
        token_cache=token_cache,
        failed_logins=FailedLogins(settings.redis_url.get_secret_value()),
        registration_limiter=make_registration_limiter(settings),
        sign_in_limiter=AddressLimiter(settings.redis_url.get_secret_value(), SIGN_IN_REQUESTS_PER_BLOCK, "sign-in"),
        submissions=Submissions(settings, sessions, autocommit_engine, queue, redis),
        user_limits=UserLimits(settings),
        embedders=embedders,
        store=store,
        search=PromptSearch(store, words, backfill, autocommit_engine),
        search_threads=search_threads,
        db_slots=FairSemaphore(MAX_CONCURRENT_READS),
        service_metrics=ServiceMetrics(
            autocommit_engine,
            queue,
            ceilings={route: model.concurrency_ceiling for route, model in settings.models.items()},
        ),
        dependency_checks=DependencyChecks(autocommit_engine, queue),
    )


def gauges(services: Services) -> dict[Gauge, Probe]:
    """The gauges that an API process samples."""
    engines = engine_gauges(services.sessions.kw["bind"], services.autocommit_engine)
    return {**engines, metrics.replica_bytes: lambda: services.store.nbytes}
