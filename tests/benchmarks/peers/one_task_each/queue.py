"""The queue, without unused Celery features."""

import os

from celery import Celery
from kombu import Queue

ANSWER = "one_task_each.answer"

app = Celery("one_task_each", broker=os.environ["PEER_REDIS_URL"], set_as_current=False)
app.conf.update(
    task_queues=[Queue("prompts")],
    task_default_queue="prompts",
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    result_backend_thread_safe=True,  # otherwise each greenlet searches for a result backend
    worker_prefetch_multiplier=8,
    worker_disable_rate_limits=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"priority_steps": [0], "socket_keepalive": True},
)
