"""The messages that wake up workers are those that Celery would send."""

import json
import uuid
from collections.abc import Iterator

import pytest
from celery import Celery
from kombu import Connection
from kombu.message import Message
from redis import Redis

from shared.messaging.queue import ANSWER_PROMPTS, Queue, make_celery, queue_name
from shared.messaging.redis import make_redis
from shared.messaging.task_messages import TaskMessages
from shared.settings import Settings

_QUEUE = queue_name("default")


@pytest.fixture
def celery(settings: Settings) -> Iterator[Celery]:
    celery = make_celery(settings)
    yield celery
    celery.close()


@pytest.fixture
def redis(settings: Settings) -> Redis:
    return make_redis(settings)


def test_a_message_is_celerys_own_but_for_its_ids(celery: Celery, redis: Redis) -> None:
    celery.send_task(ANSWER_PROMPTS, args=("default", 3), queue=_QUEUE)
    (theirs,) = map(json.loads, redis.lrange(_QUEUE, 0, -1))
    ours = json.loads(TaskMessages(celery).encode(ANSWER_PROMPTS, ("default", 3), _QUEUE))
    for message in theirs, ours:
        ids = message["headers"].pop("id"), message["headers"].pop("root_id"), message["properties"]["correlation_id"]
        assert len(set(ids)) == 1
        for name in ("correlation_id", "delivery_tag"):
            uuid.UUID(message["properties"].pop(name))
    assert ours == theirs


def test_each_message_has_an_id_of_its_own(celery: Celery) -> None:
    messages = TaskMessages(celery)
    ids = {json.loads(messages.encode(ANSWER_PROMPTS, ("default", 3), _QUEUE))["headers"]["id"] for _ in range(10)}
    assert len(ids) == 10


def test_a_worker_receives_what_the_queue_sends(celery: Celery, redis: Redis) -> None:
    queue = Queue(celery, redis)
    assert queue.wake("default", 3)
    assert queue.wake("default", 7)
    with celery.connection_for_read() as connection:
        received = [_take(connection) for _ in range(2)]
    assert [message.payload[0] for message in received] == [["default", 3], ["default", 7]]
    assert [message.headers["task"] for message in received] == [ANSWER_PROMPTS] * 2


def _take(connection: Connection) -> Message:
    with connection.SimpleQueue(_QUEUE) as waiting:
        message = waiting.get(timeout=10)
        message.ack()
    return message
