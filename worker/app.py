"""The Celery worker: `celery -A worker.app worker`."""

# First, because it says where the metrics of what is loaded after it are kept.
from worker.bootstrap import settings  # isort: split

import signal
import sys
from pathlib import Path
from typing import Any

import structlog
from celery.signals import setup_logging, worker_init, worker_process_init, worker_process_shutdown

from shared.db.engine import make_engine, make_sessions
from shared.messaging.announcements import Announcer
from shared.messaging.queue import Queue, make_celery
from shared.messaging.redis import make_redis
from shared.providers.factory import make_embedders, make_generator
from shared.settings import SettingsError
from shared.telemetry import tracing
from shared.telemetry.logs import configure_logging
from shared.telemetry.sampler import Sampler
from worker import heartbeat, metrics_server
from worker.maintenance import reaper
from worker.maintenance.reaper import Reaper
from worker.services import Services, gauges, make_services
from worker.tasks import register

configure_logging(settings)  # before Celery has anything to say
app = make_celery(settings)
_services: list[Services] = []


@setup_logging.connect  # type: ignore[untyped-decorator]
def _set_up_logging(**_: Any) -> None:
    """Is done by now; being asked is enough for Celery not to do it its way."""


@worker_init.connect  # type: ignore[untyped-decorator]
def _try_providers(**_: Any) -> None:
    """Refuses those that cannot be made. In a forked process, Celery would only log that, and go on without."""
    try:
        make_generator(settings)
        make_embedders(settings)
    except SettingsError as error:
        sys.exit(f"The worker cannot start.\n{error}")


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _build(**_: Any) -> None:
    """Gives each forked process services of its own."""
    tracing.start(settings, "promptwire-worker")
    services = make_services(settings)
    _services[:] = [services]
    Sampler(gauges(services)).start()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        # Ends the task with SystemExit, which hands its prompts back.
        signal.signal(number, lambda *_: sys.exit())
    structlog.get_logger(__name__).debug("worker process ready")


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _send_the_last_spans(**_: Any) -> None:
    tracing.stop()


def _make_reaper() -> Reaper:
    redis = make_redis(settings)
    sessions = make_sessions(make_engine(settings, application_name="promptwire-reaper"))
    return Reaper(settings, sessions, Queue(app, redis), Announcer(redis))


app.steps["worker"].update((reaper.as_bootstep(_make_reaper), metrics_server.as_bootstep(settings)))
if settings.heartbeat_file:
    app.steps["consumer"].add(heartbeat.as_bootstep(Path(settings.heartbeat_file)))
register(app, lambda: _services[0])
