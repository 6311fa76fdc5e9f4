"""Running the deliverer in a Celery worker's main process."""

import threading
from collections.abc import Callable
from typing import Any, Protocol

from celery import bootsteps


class Service(Protocol):
    """What runs while the worker runs: the deliverer."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


def as_bootstep(make: Callable[[], Service]) -> type[bootsteps.StartStopStep]:
    """A part of the Celery worker that delivers to webhooks while the worker runs.

    It starts after the pool has forked its processes. A process that is forked later has copies of the connections
    that are open then, and does nothing with them.
    """

    class WebhooksStep(bootsteps.StartStopStep):  # type: ignore[misc]
        requires = ("celery.worker.components:Pool",)

        def __init__(self, parent: Any, **kwargs: Any) -> None:
            super().__init__(parent, **kwargs)
            self._deliverer: Service | None = None

        def start(self, parent: Any) -> None:
            self._deliverer = make()
            self._deliverer.start()

        def stop(self, parent: Any) -> None:
            if self._deliverer is not None:
                # Beside the stop of the tasks, which it would delay. The process ends after the thread.
                threading.Thread(target=self._deliverer.stop, name="webhooks-stop").start()

        terminate = stop

    return WebhooksStep
