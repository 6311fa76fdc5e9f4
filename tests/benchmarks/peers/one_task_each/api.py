"""The application that gunicorn serves."""

from tests.benchmarks.peers.one_task_each.flask_app import make_app
from tests.benchmarks.peers.one_task_each.queue import ANSWER
from tests.benchmarks.peers.one_task_each.queue import app as celery

app = make_app(lambda prompt_id: celery.send_task(ANSWER, args=[prompt_id]))
