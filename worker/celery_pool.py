"""Celery's pool of a worker: whether it answers prompts in threads or in processes, and how many at a time.

A prompt that waits for another host costs a thread (0.1 MB); one that is computed here needs a process (60 MB), because
Python computes in one thread at a time. Both are Celery's own pools. `--pool` and `--concurrency` override them.
Where a host has models of both kinds, threads do: WORKER_MODELS keeps them apart.
"""

from collections.abc import Iterable
from typing import NamedTuple

from shared.providers import Generator
from shared.settings import Settings


class CeleryPool(NamedTuple):
    """Celery's settings `worker_pool` and `worker_concurrency`."""

    name: str
    size: int


def choose_pool(settings: Settings, generators: Iterable[Generator]) -> CeleryPool:
    """Return the pool that WORKER_POOL names; `auto` means threads if any of the generators waits for another host."""
    is_remote = any(getattr(generator, "is_remote", False) for generator in generators)
    if settings.worker_pool == "threads" or (settings.worker_pool == "auto" and is_remote):
        return CeleryPool("threads", settings.worker_threads)
    return CeleryPool("prefork", settings.worker_processes)
