"""What a worker process needs, built once, after the fork: connections and FAISS do not survive one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from prometheus_client import Gauge

from shared.accounts.metering import Prices
from shared.db.engine import make_engine, make_sessions
from shared.messaging.announcements import Announcer
from shared.messaging.partial_text import PartialText
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.providers.factory import capabilities, make_embedders, make_generators
from shared.search.derived_vectors import DerivedVectors
from shared.search.factory import make_maintenance, make_store
from shared.search.faiss.segment_storage import SegmentStorage
from shared.search.store import Maintenance
from shared.search.vector_backfill import VectorBackfill
from shared.settings import Settings
from shared.telemetry import metrics
from shared.telemetry.sampler import Probe, engine_gauges
from worker.account_purge import AccountPurge
from worker.backfill_task import BackfillTask
from worker.deltas import DeltaPublisher
from worker.embedder_pause import EmbedderPause
from worker.generator_guard import GuardedEmbedder
from worker.interrupted_texts import InterruptedTexts
from worker.leases import Leases
from worker.pipeline import Pipeline
from worker.provider_status import ProviderStatus
from worker.reindex.reindexer import Reindexer
from worker.semantic_cache import SemanticCache

#: Hundreds of threads share the connections of a pool. None of them has a client that waits.
CONNECTION_WAIT_SECONDS = 30.0
#: A worker restarts when more than one in STUCK_SHARE of its threads is stuck.
STUCK_SHARE = 10


@dataclass(frozen=True)
class Services:
    """Everything that a task needs."""

    pipelines: Mapping[str, Pipeline]  #: of the model routes that this host answers
    maintenance: Maintenance
    reindexer: Reindexer
    backfill_task: BackfillTask
    account_purge: AccountPurge

    @property
    def pipeline(self) -> Pipeline:
        """The first one. What does not depend on the route is the same in all of them."""
        return next(iter(self.pipelines.values()))


def gauges(services: Services) -> dict[Gauge, Probe]:
    """The gauges that a worker process samples once a second."""
    pipeline = services.pipeline
    engines = engine_gauges(pipeline.sessions.kw["bind"], pipeline.autocommit_engine)
    return {**engines, metrics.replica_bytes: lambda: pipeline.store.nbytes}


def make_services(settings: Settings, *, on_stuck: Callable[[], object] | None = None) -> Services:
    """Build the services of a worker process, with connections of its own.

    `on_stuck` is given where the tasks run in threads, which Celery does not interrupt (see `Leases`).
    """
    time_limit = timedelta(seconds=settings.generation_timeout_seconds)
    engine = partial(make_engine, settings, application_name="promptwire-worker", pool_timeout=CONNECTION_WAIT_SECONDS)
    sessions, autocommit_engine = make_sessions(engine()), engine(autocommit=True)
    redis = make_redis(settings)
    embedders = make_embedders(settings, wrap=GuardedEmbedder)
    queue = Queue(make_celery(settings), redis)
    if on_stuck is None:
        leases = Leases(sessions, settings.lease)
    else:
        max_stuck = settings.worker_threads // STUCK_SHARE
        leases = Leases(sessions, settings.lease, time_limit=time_limit, max_stuck=max_stuck, on_stuck=on_stuck)
    store = make_store(settings, sessions, autocommit_engine, embedders, queue)
    partial_text = PartialText(redis, settings.partial_text_lifetime)
    embedder_pause = EmbedderPause(on_recovery=queue.request_backfill)
    make_pipeline = partial(
        Pipeline,
        sessions=sessions,
        autocommit_engine=autocommit_engine,
        embedders=embedders,
        embedder_pause=embedder_pause,
        store=store,
        semantic_cache=SemanticCache(
            autocommit_engine, store, settings.semantic_cache_distance, settings.history_characters
        ),
        announcer=Announcer(redis),
        deltas=DeltaPublisher(partial_text, InterruptedTexts(autocommit_engine, partial_text).keep),
        queue=queue,
        leases=leases,
        lease=settings.lease,
        grace=settings.submit_grace,
        retry_backoff=timedelta(seconds=settings.retry_backoff_seconds),
        provider_patience=settings.provider_patience,
        time_limit=time_limit,
        running_limit=settings.user_running_limit,
        max_answer_bytes=settings.max_answer_bytes,
    )
    models = settings.host_models
    pipelines = {
        route: make_pipeline(
            route=route,
            generator=generator,
            provider_status=ProviderStatus(
                sessions, queue, route, settings.provider_patience, models[route].concurrency_ceiling
            ),
            ceiling=models[route].concurrency_ceiling,
            prices=Prices.from_settings(models[route]),
            capabilities=capabilities(models[route]),
        )
        for route, generator in make_generators(models).items()
    }
    maintenance = make_maintenance(settings, sessions, embedders)
    storage = SegmentStorage(settings.segments_url)
    reindexer = Reindexer(sessions, embedders, storage, maintenance, store)
    backfill = VectorBackfill(sessions, embedders, store)
    backfill_task = BackfillTask(sessions, embedders, backfill, embedder_pause, queue.request_backfill)
    derived = DerivedVectors(sessions, storage)
    account_purge = AccountPurge(sessions, partial_text, store, derived, queue.request_purge)
    return Services(pipelines, maintenance, reindexer, backfill_task, account_purge)
