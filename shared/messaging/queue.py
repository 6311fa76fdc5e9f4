"""The queue: Celery's settings, the names of its tasks, and how prompts get onto it.

A message carries ids only; losing or repeating one is harmless, because the reaper hands out what is overdue and a
claim is exclusive.
"""

import ssl
import threading
import time
from collections.abc import Iterable, Sequence

import structlog
from celery import Celery
from kombu.exceptions import KombuError
from redis import Redis, RedisError, TimeoutError

from shared.messaging.kombu_transport import Transport
from shared.settings import Settings

log = structlog.get_logger(__name__)

PROCESS_PROMPTS = "promptwire.process_prompts"
SEAL = "promptwire.seal"
REINDEX = "promptwire.reindex"
QUEUE = "prompts"

#: How long a send may wait for a broker that does not answer. (kombu's default is for ever.)
TIMEOUT_SECONDS = 0.25
#: A generation that does not end when its time is up is killed, with its process, so much later.
HARD_LIMIT_AFTER_SECONDS = 5
#: How often a broker that was away is asked whether it is back.
PROBE_SECONDS = 0.5


def _only_if_dropped(error: Exception, _: float) -> None:
    """Has kombu not try again with a server that is silent."""
    if isinstance(error, TimeoutError):
        raise error


#: A connection that was dropped is made again, once.
_ONCE_MORE = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0, "errback": _only_if_dropped}


def make_celery(settings: Settings) -> Celery:
    """The Celery application of the API (to send) and of the workers (to run)."""
    url = settings.redis_url.get_secret_value()
    app = Celery("promptwire", broker=url, set_as_current=False)
    app.conf.update(
        # By name, because Celery shows its settings as JSON (`celery inspect stats`, Flower).
        broker_transport=f"{Transport.__module__}:{Transport.__qualname__}",
        # As redis-py does by itself; kombu would not ask for a certificate.
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if url.startswith("rediss:") else None,
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        # The prompt's own lease and attempts decide what is run again; late acks only make that sooner.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_soft_time_limit=settings.generation_timeout_seconds,
        task_time_limit=settings.generation_timeout_seconds + HARD_LIMIT_AFTER_SECONDS,
        worker_concurrency=settings.worker_processes,
        worker_prefetch_multiplier=1,
        worker_soft_shutdown_timeout=settings.soft_shutdown_seconds,
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


class Queue:
    """Puts prompts onto the queue, best effort and in bounded time.

    After a send has failed none is tried until the broker answers again, so that requests do not wait, one after the
    other, for one that is away.
    """

    def __init__(self, celery: Celery, redis: Redis) -> None:
        self._celery = celery
        self._redis = redis
        self._away = threading.Event()

    def enqueue(self, prompt_ids: Sequence[int]) -> bool:
        """Hands these prompts to the workers. Returns whether the broker took them; if not, the reaper will."""
        return self._send(PROCESS_PROMPTS, list(prompt_ids))

    def ask_to_seal(self, user_id: int) -> bool:
        """Has a worker seal a user's vector log. Returns whether the broker took that."""
        return self._send(SEAL, user_id)

    def ask_to_reindex(self, user_id: int) -> bool:
        """Has a worker make a user's vectors anew. Returns whether the broker took that."""
        return self._send(REINDEX, user_id)

    def _send(self, task: str, argument: object) -> bool:
        if self._away.is_set():
            return False
        try:
            with self._celery.producer_pool.acquire(block=True, timeout=TIMEOUT_SECONDS) as producer:
                if self._away.is_set():  # found by whoever used the producer before us
                    return False
                self._celery.send_task(task, args=[argument], producer=producer, retry_policy=_ONCE_MORE)
        except (KombuError, RedisError, OSError) as error:
            log.warning("broker away; asked again later", task=task, argument=argument, error=type(error).__name__)
            self._wait_for_broker()
            return False
        return True

    def _wait_for_broker(self) -> None:
        if not self._away.is_set():
            self._away.set()
            threading.Thread(target=self._probe, name="broker-probe", daemon=True).start()

    def _probe(self) -> None:
        while self.length() is None:
            time.sleep(PROBE_SECONDS)
        log.info("broker back")
        self._away.clear()

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
