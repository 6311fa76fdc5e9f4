"""The Celery worker: `celery -A worker.app worker`."""

import signal
import sys
from typing import Any

import structlog
from celery.signals import setup_logging, worker_process_init

from shared.database import make_engine, make_sessions
from shared.events import Announcer
from shared.logs import configure_logging
from shared.queue import Queue, make_celery
from shared.redis import make_redis
from shared.settings import SettingsError, load_settings
from worker.reaper import Reaper, as_bootstep
from worker.services import Services, make_services
from worker.tasks import register

try:
    settings = load_settings()
except SettingsError as error:
    sys.exit(f"The worker cannot start.\n{error}")

app = make_celery(settings)
_services: list[Services] = []


@setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logging(**_: Any) -> None:
    configure_logging(settings)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _build(**_: Any) -> None:
    """Gives each forked process services of its own."""
    _services[:] = [make_services(settings)]
    for number in (signal.SIGTERM, signal.SIGQUIT):
        # Ends the task with SystemExit, which hands its prompts back.
        signal.signal(number, lambda *_: sys.exit())
    structlog.get_logger(__name__).debug("worker process ready")


def _make_reaper() -> Reaper:
    redis = make_redis(settings)
    sessions = make_sessions(make_engine(settings, application_name="promptwire-reaper"))
    return Reaper(settings, sessions, Queue(app, redis), Announcer(redis))


app.steps["worker"].add(as_bootstep(_make_reaper))
register(app, lambda: _services[0])
