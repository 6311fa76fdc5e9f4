"""Running the maintenance jobs in threads of a Celery worker's main process."""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from celery import bootsteps
from sqlalchemy.exc import SQLAlchemyError

from shared.db.engine import cause

log = structlog.get_logger(__name__)

#: The first round of a job with a long interval: a worker that is often restarted must do it, too.
FIRST_ROUND_SECONDS = 5.0

Job = Callable[[], None]


def run_periodically(name: str, job: Job, seconds: float, stop: threading.Event) -> None:
    """Run the job every `seconds`, the first time soon, until `stop` is set.

    A failed round is logged, and the next one tries again.
    """
    pause = min(seconds, FIRST_ROUND_SECONDS)
    while not stop.wait(pause):
        pause = seconds
        try:
            job()
        except SQLAlchemyError as error:
            log.warning("maintenance round failed", job=name, error=cause(error))
        except Exception:
            log.exception("maintenance round failed", job=name)


def as_bootstep(make_jobs: Callable[[], Mapping[str, tuple[Job, float]]]) -> type[bootsteps.StartStopStep]:
    """A part of the Celery worker that runs jobs while the worker runs.

    `make_jobs` gives them by name, each with its interval in seconds.
    """

    class MaintenanceStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._stop = threading.Event()

        def start(self, parent: Any) -> None:
            for name, (job, seconds) in make_jobs().items():
                arguments = (name, job, seconds, self._stop)
                threading.Thread(target=run_periodically, args=arguments, name=name, daemon=True).start()

        def stop(self, parent: Any) -> None:
            self._stop.set()

        terminate = stop

    return MaintenanceStep
