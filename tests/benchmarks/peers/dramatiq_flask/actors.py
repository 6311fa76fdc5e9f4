"""The queue and the worker's actor: `dramatiq tests.benchmarks.peers.dramatiq_flask.actors`."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks.peers.one_task_each.answering import Answering

dramatiq.set_broker(RedisBroker(url=os.environ["PEER_REDIS_URL"]))
_answering = Answering()


@dramatiq.actor(queue_name="prompts")
def answer(prompt_id: int) -> None:
    _answering.answer(prompt_id)
