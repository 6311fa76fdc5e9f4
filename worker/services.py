"""What a worker process needs, built once, after the fork: connections and FAISS do not survive one."""

from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Gauge

from shared.db.engine import make_engine, make_sessions
from shared.db.models import DEFAULT_ROUTE
from shared.messaging.announcements import Announcer
from shared.messaging.partial_text import PartialText
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.providers.factory import make_embedders, make_generator
from shared.search.factory import make_maintenance, make_store
from shared.search.faiss.segment_storage import SegmentStorage
from shared.search.store import Maintenance
from shared.settings import Settings
from shared.telemetry import metrics
from shared.telemetry.sampler import Probe, engine_gauges
from worker.leases import Leases
from worker.pipeline import Pipeline
from worker.provider_status import ProviderStatus
from worker.reindex.reindexer import Reindexer
from worker.semantic_cache import SemanticCache


@dataclass(frozen=True)
class Services:
    """Everything that a task needs."""

    pipeline: Pipeline
    maintenance: Maintenance
    reindexer: Reindexer


def gauges(services: Services) -> dict[Gauge, Probe]:
    """The gauges that a worker process samples once a second."""
    pipeline = services.pipeline
    engines = engine_gauges(pipeline.sessions.kw["bind"], pipeline.autocommit_engine)
    return {**engines, metrics.replica_bytes: lambda: pipeline.store.nbytes}


def make_services(settings: Settings) -> Services:
    """Build the services of a worker process, with connections of its own."""
    sessions = make_sessions(make_engine(settings, application_name="promptwire-worker"))
    autocommit_engine = make_engine(settings, application_name="promptwire-worker", autocommit=True)
    redis = make_redis(settings)
    embedders = make_embedders(settings)
    queue = Queue(make_celery(settings), redis)
    store = make_store(settings, sessions, autocommit_engine, embedders, queue)
    pipeline = Pipeline(
        sessions=sessions,
        autocommit_engine=autocommit_engine,
        generator=make_generator(settings),
        embedders=embedders,
        store=store,
        semantic_cache=SemanticCache(
            autocommit_engine, store, settings.semantic_cache_distance, settings.history_characters
        ),
        announcer=Announcer(redis),
        partial_text=PartialText(redis, settings.partial_text_lifetime),
        queue=queue,
        leases=Leases(sessions, settings.lease),
        provider_status=ProviderStatus(
            sessions, queue, DEFAULT_ROUTE, settings.provider_patience, settings.route_concurrency
        ),
        route=DEFAULT_ROUTE,
        lease=settings.lease,
        grace=settings.submit_grace,
        retry_backoff=timedelta(seconds=settings.retry_backoff_seconds),
        provider_patience=settings.provider_patience,
        time_limit=timedelta(seconds=settings.generation_timeout_seconds),
        running_limit=settings.user_running_limit,
        max_answer_bytes=settings.max_answer_bytes,
        ceiling=settings.route_concurrency,
    )
    maintenance = make_maintenance(settings, sessions, embedders)
    reindexer = Reindexer(sessions, embedders, SegmentStorage(settings.segments_url), maintenance, store)
    return Services(pipeline, maintenance, reindexer)
