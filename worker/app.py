"""The Celery worker: `celery -A worker.app worker`."""

# First, because it decides where the metrics of everything that is imported after it are kept.
from worker.bootstrap import settings  # isort: split

import gc
import logging
import signal
import sys
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from celery.concurrency.thread import TaskPool
from celery.platforms import SecurityWarning
from celery.signals import (
    setup_logging,
    task_prerun,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
)

from shared.db.engine import make_engine, make_sessions
from shared.messaging.announcements import Announcer
from shared.messaging.queue import QUEUE, Queue, make_celery, queue_name
from shared.messaging.redis import make_redis
from shared.search import replica_check
from shared.settings import SettingsError
from shared.telemetry import tracing
from shared.telemetry.logs import configure_logging
from shared.telemetry.sampler import Sampler
from worker import heartbeat, metrics_server, operations, prerequisites, stop_deadline
from worker.batches import driver
from worker.batches.driver import BatchDriver
from worker.celery_pool import choose_pool
from worker.draining import Draining
from worker.leases import WorkerStopping
from worker.loop_wakeup import WakeUpStep
from worker.maintenance import bootstep, presence, purger, unstored
from worker.maintenance.bootstep import Job
from worker.maintenance.cleaner import INTERVAL_SECONDS, Cleaner
from worker.maintenance.emptier import Emptier
from worker.maintenance.presence import PresenceWriter
from worker.maintenance.purger import Purger
from worker.maintenance.reaper import PROBE_SECONDS, Reaper
from worker.maintenance.unstored import UnstoredPrompts
from worker.operations import OperationDriver
from worker.prefetch import PrefetchStep
from worker.services import Services, gauges, make_services
from worker.tasks import register
from worker.webhooks import bootstep as webhooks_bootstep

configure_logging(settings)  # before Celery logs anything
# Celery warns of root because of pickled messages, which are not accepted here.
warnings.simplefilter("ignore", SecurityWarning)
_connection_log = logging.getLogger("celery.worker.consumer.connection")
_connection_log.setLevel("WARNING")  # the first connection, until Celery logs that the worker is ready
app = make_celery(settings)
_services: list[Services] = []


if "worker" in sys.argv:  # and not Flower or another command, which need none of this
    try:
        pool = choose_pool(settings, prerequisites.check(settings))
    except SettingsError as error:
        sys.exit(f"The worker cannot start.\n{error}")
    app.conf.update(worker_pool=pool.name, worker_concurrency=pool.size)
    # All queues of the models are known, so that this host can wake up workers of others.
    app.amqp.queues.select([QUEUE, *map(queue_name, settings.host_models)])


@setup_logging.connect  # type: ignore[untyped-decorator]
def _keep_our_logging(**_: Any) -> None:
    """Keep Celery from configuring the logging: a receiver is enough for that."""


@worker_ready.connect  # type: ignore[untyped-decorator]
def _prepare(sender: Any, **_: Any) -> None:
    """Bound how long a stop takes. If the tasks run in threads of this process, make its services."""
    _connection_log.setLevel("NOTSET")
    if isinstance(sender.pool, TaskPool):
        draining = Draining(sender, lambda: _services[0].pipeline.leases.stop(), settings.soft_shutdown_seconds)
        _make_services(on_stuck=draining.begin)
        draining.install()  # it has its own deadline
    else:
        stop_deadline.install(settings.soft_shutdown_seconds + stop_deadline.GRACE_SECONDS)


def _make_services(on_stuck: Callable[[], object] | None = None) -> None:
    tracing.start(settings, "promptwire-worker")
    services = make_services(settings, on_stuck=on_stuck)
    _services[:] = [services]
    Sampler(gauges(services)).start()
    replica_check.start(services.pipeline.store)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _start_process(**_: Any) -> None:
    """Give each forked process services of its own."""
    _make_services()
    # Not here, because billiard sets handlers of its own after this.
    task_prerun.connect(_handle_stop)
    structlog.get_logger(__name__).debug("worker process ready")


def _handle_stop(**_: Any) -> None:
    for number in (signal.SIGTERM, signal.SIGQUIT):
        # Ends the task, which releases its prompts.
        signal.signal(number, _stop)


def _stop(*_: object) -> None:
    raise WorkerStopping


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _send_last_spans(**_: Any) -> None:
    tracing.stop()


def _make_maintenance_jobs() -> Mapping[str, tuple[Job, float]]:
    redis = make_redis(settings)
    engine = partial(make_engine, settings, application_name="promptwire-maintenance")
    sessions = make_sessions(engine())
    queue, announcer = Queue(app, redis), Announcer(redis)
    reaper = Reaper(settings, sessions, queue, announcer)
    operation_driver = OperationDriver(settings, sessions, queue, announcer)
    presence_writer = PresenceWriter(
        sessions, app.conf.worker_pool, app.conf.worker_concurrency or 0, list(settings.host_models)
    )
    batch_driver = BatchDriver(settings, sessions, engine(autocommit=True), queue, announcer)
    jobs: dict[str, tuple[Job, float]] = {
        "reaper": (reaper.round, settings.reaper_seconds),
        "probes": (reaper.start_probes, PROBE_SECONDS),
        "cleaner": (Cleaner(settings, sessions).round, INTERVAL_SECONDS),
        "unstored": (UnstoredPrompts(sessions, announcer).round, unstored.INTERVAL_SECONDS),
        "batches": (batch_driver.round, driver.INTERVAL_SECONDS),
        "operations": (operation_driver.round, operations.INTERVAL_SECONDS),
        "presence": (presence_writer.round, presence.INTERVAL_SECONDS),
        "purger": (Purger(sessions, queue).round, purger.INTERVAL_SECONDS),
    }
    if settings.retention_days is not None:
        emptier = Emptier(sessions, settings.retention_days, queue.request_sealing)
        jobs["emptier"] = (emptier.round, INTERVAL_SECONDS)
    return jobs


def _make_deliverer() -> webhooks_bootstep.Service:
    from worker.webhooks.deliverer import Deliverer  # slow to load, and Flower and forked processes do without

    sessions = make_sessions(make_engine(settings, application_name="promptwire-webhooks"))
    return Deliverer(sessions, allow_private=settings.webhooks_may_be_private)


app.steps["worker"].update(
    (
        bootstep.as_bootstep(_make_maintenance_jobs),
        metrics_server.as_bootstep(settings),
        webhooks_bootstep.as_bootstep(_make_deliverer),
    )
)
app.steps["consumer"].add(PrefetchStep)
app.steps["consumer"].add(WakeUpStep)
if settings.heartbeat_file:
    app.steps["consumer"].add(heartbeat.as_bootstep(Path(settings.heartbeat_file)))
register(app, lambda: _services[0])
gc.enable()
