"""What a worker process holds, built once: after the fork, because connections and FAISS do not survive one."""

from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Gauge

from shared.database import make_engine, make_sessions
from shared.events import Announcer
from shared.providers.factory import make_embedders, make_generator
from shared.queue import Queue, make_celery
from shared.redis import make_redis
from shared.running_text import RunningText
from shared.search.factory import make_store, make_upkeep
from shared.search.segments import Segments
from shared.search.store import Upkeep
from shared.settings import Settings
from shared.telemetry import metrics
from shared.telemetry.sampler import Look, of_engines
from worker.leases import Leases
from worker.memory import Memory
from worker.pipeline import Pipeline
from worker.provider_pause import ProviderPause
from worker.reindexer import Reindexer


@dataclass(frozen=True)
class Services:
    """Everything that a task needs."""

    pipeline: Pipeline
    upkeep: Upkeep
    reindexer: Reindexer


def gauges(services: Services) -> dict[Gauge, Look]:
    """What is looked at once a second in a worker process."""
    pipeline = services.pipeline
    engines = of_engines(pipeline.sessions.kw["bind"], pipeline.autocommit)
    return {**engines, metrics.replica_bytes: lambda: pipeline.store.nbytes}


def make_services(settings: Settings) -> Services:
    """Those of a worker process, with its own connections."""
    sessions = make_sessions(make_engine(settings, application_name="promptwire-worker"))
    autocommit = make_engine(settings, application_name="promptwire-worker", autocommit=True)
    redis = make_redis(settings)
    embedders = make_embedders(settings)
    queue = Queue(make_celery(settings), redis)
    store = make_store(settings, sessions, autocommit, embedders, queue)
    pipeline = Pipeline(
        sessions=sessions,
        autocommit=autocommit,
        generator=make_generator(settings),
        embedders=embedders,
        store=store,
        memory=Memory(autocommit, store, settings.semantic_cache_distance, settings.history_characters),
        announcer=Announcer(redis),
        running=RunningText(redis, settings.running_text_lifetime),
        queue=queue,
        leases=Leases(sessions, settings.lease),
        pause=ProviderPause(settings.provider_patience),
        lease=settings.lease,
        backoff=timedelta(seconds=settings.retry_backoff_seconds),
        patience=settings.provider_patience,
        time_limit=timedelta(seconds=settings.generation_timeout_seconds),
    )
    upkeep = make_upkeep(settings, sessions, embedders)
    reindexer = Reindexer(sessions, embedders, Segments(settings.segments_url), upkeep, store)
    return Services(pipeline, upkeep, reindexer)
