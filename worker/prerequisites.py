"""What a worker needs before it can start, tried once.

In a forked process, Celery would only log an error and go on.
"""

from collections.abc import Collection
from pathlib import Path

from shared.messaging.redis import make_redis
from shared.providers import Generator
from shared.providers.factory import make_embedders, make_generators
from shared.search.faiss import segment_storage
from shared.settings import Settings
from worker import heartbeat


def check(settings: Settings) -> Collection[Generator]:
    """Try what the settings name: heartbeat file, storage of segments, Redis, embedders, generators. Nothing connects.

    Returns the generators of this host's models, which say what pool they need.

    Raises:
        SettingsError: something does not exist, or cannot be created or written.
    """
    if settings.heartbeat_file:
        heartbeat.check(Path(settings.heartbeat_file))
    if settings.segments_url:
        segment_storage.check_url(settings.segments_url)
    make_redis(settings)
    make_embedders(settings)
    return make_generators(settings.host_models).values()
