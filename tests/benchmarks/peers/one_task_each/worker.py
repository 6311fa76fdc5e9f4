"""The worker's task: `celery -A tests.benchmarks.peers.one_task_each.worker worker`."""

from tests.benchmarks.peers.one_task_each.answering import Answering
from tests.benchmarks.peers.one_task_each.queue import ANSWER, app

_answering = Answering()


@app.task(name=ANSWER)
def answer(prompt_id: int) -> None:
    _answering.answer(prompt_id)
