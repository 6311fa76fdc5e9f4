"""How many messages a worker takes at a time after its broker was unavailable.

The tasks that run since before still occupy the pool, though the new connection does not know of them. Celery takes
that many messages less, too, but one more only for each new message that it has processed: a worker with 200 threads
took 40 s until it used them all again.
"""

from typing import Any

from celery import bootsteps
from celery.worker import state

CHECK_SECONDS = 0.5


class PrefetchStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """A part of the Celery consumer, which restarts with each connection: takes a message for each free place."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    _repeated: Any = None  # a worker may be stopped before it has started

    def start(self, parent: Any) -> None:
        self._old = _active_requests()
        if self._old:
            self._adjust(parent)
            self._repeated = parent.timer.call_repeatedly(CHECK_SECONDS, self._adjust, (parent,))

    def stop(self, parent: Any) -> None:
        if self._repeated is not None:
            self._repeated.cancel()

    shutdown = terminate = stop

    def _adjust(self, consumer: Any) -> None:
        """Leave places free for the old tasks that still run. The consumer's loop tells the connection."""
        self._old = [request for request in self._old if request in state.active_requests]
        places = consumer.pool.num_processes * consumer.prefetch_multiplier
        consumer.qos.value = max(1, places - len(self._old))
        if not self._old and self._repeated is not None:
            self._repeated.cancel()


def _active_requests() -> list[Any]:
    """The tasks that run. Other threads may end some meanwhile, and then the set cannot be iterated."""
    while True:
        try:
            return list(state.active_requests)
        except RuntimeError:
            continue
