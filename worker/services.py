"""What a worker process holds, built once: after the fork, because connections and FAISS do not survive one."""

from datetime import timedelta

from shared.database import make_engine, make_sessions
from shared.events import Announcer
from shared.providers import make_embedder, make_generator
from shared.redis import make_redis
from shared.search.replicas import Replicas
from shared.settings import Settings
from worker.leases import Leases
from worker.pipeline import Pipeline


def make_pipeline(settings: Settings) -> Pipeline:
    """The pipeline of a worker process, with its own connections."""
    sessions = make_sessions(make_engine(settings, application_name="promptwire-worker"))
    embedder = make_embedder(settings)
    return Pipeline(
        sessions=sessions,
        generator=make_generator(settings),
        embedder=embedder,
        replicas=Replicas(sessions, embedder, memory_mib=settings.search_memory_mib),
        announcer=Announcer(make_redis(settings)),
        leases=Leases(sessions, settings.lease),
        lease=settings.lease,
        backoff=timedelta(seconds=settings.retry_backoff_seconds),
    )
