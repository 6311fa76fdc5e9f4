"""Celery's messages, as kombu stores them in Redis.

Celery and kombu take eight times longer to make and send a message than Redis does to store it, and messages hardly
differ. So Celery makes one of each kind, in memory; its copies, with ids of their own, are what is sent.
"""

import threading
from functools import lru_cache
from uuid import uuid4

from celery import Celery
from kombu import Connection
from kombu.utils.json import dumps

#: How many messages of different arguments are kept.
_MAX_KEPT = 1_000


class TaskMessages:
    """Makes the messages of an application's tasks."""

    #: kombu's queues in memory belong to the whole process.
    _lock = threading.Lock()

    def __init__(self, celery: Celery) -> None:
        self._celery = celery
        self._connection = Connection("memory://")
        self._parts = lru_cache(_MAX_KEPT)(self._make_parts)

    def encode(self, task: str, arguments: tuple[object, ...], queue: str) -> str:
        """A new message that has a worker run a task: an entry of the Redis list `queue`.

        Args:
            arguments: Hashable ones.
        """
        return str(uuid4()).join(self._parts(task, arguments, queue))

    def _make_parts(self, task: str, arguments: tuple[object, ...], queue: str) -> list[str]:
        """The text of a message between the places of its id, which is also its delivery tag."""
        placeholder = str(uuid4())
        with self._lock:
            self._celery.send_task(task, args=arguments, queue=queue, connection=self._connection, task_id=placeholder)
            message = self._connection.default_channel._get(queue)
        message["properties"]["delivery_tag"] = placeholder
        parts: list[str] = dumps(message).split(placeholder)
        return parts
