"""The heartbeat file that `worker.healthcheck` reads."""

from pathlib import Path
from typing import Any

from celery import bootsteps

from shared.settings import SettingsError

INTERVAL_SECONDS = 5


def check(file: Path) -> None:
    """Check that the file can be written. Raises SettingsError if not."""
    try:
        file.touch()
    except OSError as error:
        raise SettingsError(f"HEARTBEAT_FILE={file} cannot be written: {error.strerror}.") from error


def as_bootstep(file: Path) -> type[bootsteps.StartStopStep]:
    """A part of the Celery consumer whose loop, which takes messages, touches the file.

    It belongs to the consumer, because that restarts, without its timers, after the broker was unavailable.
    """

    class HeartbeatStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.consumer.tasks:Tasks",)

        _repeated: Any = None  # a worker may be stopped before it has started

        def start(self, parent: Any) -> None:
            file.touch()
            self._repeated = parent.timer.call_repeatedly(INTERVAL_SECONDS, file.touch)

        def stop(self, parent: Any) -> None:
            if self._repeated is not None:
                self._repeated.cancel()

        shutdown = terminate = stop

    return HeartbeatStep
