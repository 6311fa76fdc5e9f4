"""The queue: Celery's settings, the names of its tasks, and the messages that wake up workers.

A message says that a number of prompts of a model route can be claimed, not which ones: the claim chooses (see
`shared/prompts/scheduling.py`). A lost message does no harm, because the reaper sends another. A surplus message finds
nothing to claim.
"""

import ssl
import threading
import time
from collections import Counter

import structlog
from celery import Celery
from kombu import Queue as KombuQueue
from redis import Redis, RedisError

from shared.db.models import DEFAULT_ROUTE
from shared.messaging.kombu_transport import Transport
from shared.messaging.redis import cause, write_problem
from shared.messaging.task_messages import TaskMessages
from shared.settings import BrokerSettings, Settings

log = structlog.get_logger(__name__)

ANSWER_PROMPTS = "promptwire.answer_prompts"
#: Sent by the release before the fair queue, with the ids of prompts.
PROCESS_PROMPTS = "promptwire.process_prompts"
SEAL = "promptwire.seal"
REINDEX = "promptwire.reindex"
EMBED_MISSING = "promptwire.embed_missing"
PURGE_ACCOUNT = "promptwire.purge_account"
#: The queue of maintenance, and of the messages of the release before the fair queue.
QUEUE = "prompts"
#: The largest number of prompts that a message asks for.
MAX_PROMPTS_PER_MESSAGE = 1_000


def queue_name(route: str) -> str:
    """The name of the Celery queue of a model route."""
    return f"{QUEUE}.{route}"


#: How long a worker waits for a broker that does not answer. (kombu waits for ever by default.)
BROKER_TIMEOUT_SECONDS = 0.25
#: A generation that ignores the soft time limit is killed, with its process, after this many more seconds.
HARD_LIMIT_AFTER_SECONDS = 5
#: How often an unavailable broker is probed.
PROBE_SECONDS = 0.5


def connect_celery(settings: BrokerSettings) -> Celery:
    """A Celery application that reaches the broker and the workers, such as Flower's."""
    url = settings.redis_url.get_secret_value()
    app = Celery("promptwire", broker=url, set_as_current=False)
    app.conf.update(
        # By name, because Celery reports its settings as JSON (`celery inspect stats`, Flower).
        broker_transport=f"{Transport.__module__}:{Transport.__qualname__}",
        # redis-py checks certificates by default; kombu would not.
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if url.startswith("rediss:") else None,
        task_default_queue=QUEUE,
        task_queues=[KombuQueue(QUEUE), KombuQueue(queue_name(DEFAULT_ROUTE))],
        accept_content=["json"],
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # An error that Redis answers with (a key of another type, a replica that was a primary) would end the worker.
        broker_channel_error_retry=True,
        broker_transport_options={
            "socket_timeout": BROKER_TIMEOUT_SECONDS,
            "socket_connect_timeout": BROKER_TIMEOUT_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "max_retries": 1,
            "priority_steps": [0],
        },
    )
    return app


def make_celery(settings: Settings) -> Celery:
    """The Celery application of the API (to send) and of the workers (to run)."""
    app = connect_celery(settings)
    app.conf.update(
        task_queues=[KombuQueue(name) for name in (QUEUE, *map(queue_name, settings.models))],
        task_serializer="json",
        task_ignore_result=True,
        # The prompt's lease and attempts decide what runs again. A message counts as taken until its task ends, so that
        # a worker takes no more of them than it has processes.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_soft_time_limit=settings.generation_timeout_seconds,
        task_time_limit=settings.generation_timeout_seconds + HARD_LIMIT_AFTER_SECONDS,
        worker_prefetch_multiplier=1,
        worker_enable_prefetch_count_reduction=False,  # worker/prefetch.py does it
        worker_soft_shutdown_timeout=settings.soft_shutdown_seconds,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        # Otherwise Celery looks up its result backend in every new greenlet.
        result_backend_thread_safe=True,
    )
    return app


class Queue:
    """Sends messages to workers, best effort and in bounded time.

    After a send has failed, the next is tried only when the broker answers a probe, so that requests do not wait for it
    one after the other. Then workers are woken up for the prompts that were queued meanwhile.
    """

    def __init__(self, celery: Celery, redis: Redis) -> None:
        self._messages = TaskMessages(celery)
        self._redis = redis
        self._unavailable = threading.Event()
        self._unsent: Counter[str] = Counter()  #: for how many prompts of each route workers are to be woken up
        self._lock = threading.Lock()

    def wake(self, route: str, count: int) -> bool:
        """Wake up workers for this many prompts.

        Returns whether the broker took the message. If not, it gets another when it answers again.
        """
        count = min(count, MAX_PROMPTS_PER_MESSAGE)
        if count <= 0 or self._send(ANSWER_PROMPTS, route, count, queue=queue_name(route)):
            return True
        with self._lock:
            self._unsent[route] += count
        return False

    def request_sealing(self, user_id: int) -> bool:
        """Have a worker seal a user's vector log. Returns whether the broker took the message."""
        return self._send(SEAL, user_id)

    def request_reindex(self, user_id: int) -> bool:
        """Have a worker rebuild a user's vectors. Returns whether the broker took the message."""
        return self._send(REINDEX, user_id)

    def request_purge(self, user_id: int) -> bool:
        """Have a worker delete what is left of a deleted account. Returns whether the broker took the message."""
        return self._send(PURGE_ACCOUNT, user_id)

    def request_backfill(self) -> bool:
        """Have a worker embed prompts that were completed without a vector. Returns whether the message was sent.

        It is not sent while other maintenance waits: workers are busy then, and the next round of a reaper is soon.
        """
        return self._length(QUEUE) == 0 and self._send(EMBED_MISSING)

    def _send(self, task: str, *arguments: object, queue: str = QUEUE) -> bool:
        if self._unavailable.is_set():
            return False
        try:
            self._redis.lpush(queue, self._messages.encode(task, arguments, queue))
        except RedisError as error:
            log.warning("broker unavailable, message not sent", task=task, arguments=arguments, error=cause(error))
            self.wait_for_broker()
            return False
        return True

    def wait_for_broker(self) -> None:
        """Send nothing until the server answers a probe: a message, or another use of it, has just failed."""
        if not self._unavailable.is_set():
            self._unavailable.set()
            threading.Thread(target=self._probe, name="broker-probe", daemon=True).start()

    def _probe(self) -> None:
        while self.write_problem() is not None:  # a replica answers, but accepts no message
            time.sleep(PROBE_SECONDS)
        log.info("broker available again")
        self._unavailable.clear()
        with self._lock:
            unsent, self._unsent = self._unsent, Counter()
        for route, count in unsent.items():
            self.wake(route, count)

    @property
    def is_available(self) -> bool:
        """Whether the last message was sent, as far as this process knows."""
        return not self._unavailable.is_set()

    def write_problem(self) -> str | None:
        """Try to write to the broker. Returns why it accepts no message, or None if it does."""
        return write_problem(self._redis)

    def length(self, route: str = DEFAULT_ROUTE) -> int | None:
        """How many messages of the route wait, or None if the broker is unavailable."""
        return self._length(queue_name(route))

    def _length(self, name: str) -> int | None:
        try:
            return int(self._redis.llen(name))  # type: ignore[arg-type]
        except RedisError:
            return None
