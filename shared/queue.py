"""The queue: Celery's settings, the names of its tasks, and how prompts get onto it.

A message carries ids only; losing or repeating one is harmless, because the reaper hands out what is overdue and a
claim is exclusive.
"""

import time
from collections.abc import Iterable, Sequence

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis, RedisError

from shared.settings import Settings

log = structlog.get_logger(__name__)

PROCESS_PROMPTS = "promptwire.process_prompts"
QUEUE = "prompts"

#: After a failed send nobody tries for this long, so that requests do not queue up behind a broker that is away.
PAUSE_SECONDS = 1.0


def make_celery(settings: Settings) -> Celery:
    """The Celery application of the API (to send) and of the workers (to run)."""
    app = Celery("promptwire", broker=settings.redis_url.get_secret_value(), set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        # The prompt's own lease and attempts decide what is run again; late acks only make that sooner.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_soft_time_limit=settings.generation_timeout_seconds,
        task_time_limit=settings.generation_timeout_seconds + 30,
        worker_prefetch_multiplier=1,
        worker_soft_shutdown_timeout=settings.soft_shutdown_seconds,
        worker_enable_soft_shutdown_on_idle=True,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "socket_timeout": TIMEOUT_SECONDS,
            "socket_connect_timeout": TIMEOUT_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "max_retries": 1,
            "priority_steps": [0],
            "visibility_timeout": 300,
            "unacked_restore_interval": 5,
        },
        # Without this, Celery looks its result backend up anew in every greenlet.
        result_backend_thread_safe=True,
    )
    return app


#: How long a send may wait for a broker that does not answer. (kombu's default is for ever.)
TIMEOUT_SECONDS = 1.0


class Queue:
    """Puts prompts onto the queue, best effort and in bounded time."""

    def __init__(self, celery: Celery, redis: Redis) -> None:
        self._celery = celery
        self._redis = redis
        self._paused_until = 0.0

    def enqueue(self, prompt_ids: Sequence[int]) -> bool:
        """Hands these prompts to the workers. Returns whether the broker took them; if not, the reaper will."""
        if time.monotonic() < self._paused_until:
            return False
        try:
            self._celery.send_task(
                PROCESS_PROMPTS,
                args=[list(prompt_ids)],
                retry=True,
                retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
            )
        except (OperationalError, RedisError, OSError) as error:
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            log.warning("not enqueued, the reaper will", prompt_ids=prompt_ids, error=type(error).__name__)
            return False
        return True

    def enqueue_each(self, prompt_ids: Iterable[int]) -> None:
        """Hands each of these prompts to the workers by itself."""
        for prompt_id in prompt_ids:
            self.enqueue([prompt_id])

    def length(self) -> int | None:
        """How many messages wait, or None if the broker is away."""
        try:
            return int(self._redis.llen(QUEUE))  # type: ignore[arg-type]
        except RedisError:
            return None
