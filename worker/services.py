"""What a worker process holds, built once: after the fork, because connections and FAISS do not survive one."""

from dataclasses import dataclass
from datetime import timedelta

from shared.database import make_engine, make_sessions
from shared.events import Announcer
from shared.providers import make_embedders, make_generator
from shared.queue import Queue, make_celery
from shared.redis import make_redis
from shared.search.factory import make_store, make_upkeep
from shared.search.segments import Segments
from shared.search.store import Upkeep
from shared.settings import Settings
from worker.leases import Leases
from worker.pipeline import Pipeline
from worker.reindexer import Reindexer


@dataclass(frozen=True)
class Services:
    """Everything that a task needs."""

    pipeline: Pipeline
    upkeep: Upkeep
    reindexer: Reindexer


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
        announcer=Announcer(redis),
        queue=queue,
        leases=Leases(sessions, settings.lease),
        lease=settings.lease,
        backoff=timedelta(seconds=settings.retry_backoff_seconds),
    )
    upkeep = make_upkeep(settings, sessions, embedders)
    reindexer = Reindexer(sessions, embedders, Segments(settings.segments_url), upkeep, store)
    return Services(pipeline, upkeep, reindexer)
