"""The sign of life that `worker.healthcheck` looks for."""

from pathlib import Path
from typing import Any

from celery import bootsteps

EVERY_SECONDS = 5


def as_bootstep(file: Path) -> type[bootsteps.StartStopStep]:
    """A part of the Celery consumer that has its loop, which takes messages, touch the file as it turns.

    Of the consumer, because that starts anew, with all timers forgotten, when the broker was away.
    """

    class HeartbeatStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, parent: Any) -> None:
            file.touch()
            self._repeated = parent.timer.call_repeatedly(EVERY_SECONDS, file.touch)

        def stop(self, parent: Any) -> None:
            self._repeated.cancel()

        shutdown = terminate = stop

    return HeartbeatStep
