"""The application that gunicorn serves."""

from tests.benchmarks.peers.dramatiq_flask.actors import answer
from tests.benchmarks.peers.one_task_each.flask_app import make_app

app = make_app(answer.send)
