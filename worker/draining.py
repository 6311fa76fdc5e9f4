"""Stopping a worker that runs its tasks in threads.

Celery cannot end a thread, and would wait for all of them. So a stop first takes no more messages, gives the attempts
SOFT_SHUTDOWN_SECONDS to end, interrupts the rest, whose prompts are released, and stops Celery when no task is left.
A second signal interrupts them at once. `stop_deadline` bounds the whole, also without a signal, when the worker stops
because one of its threads is stuck.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
from celery.worker import state

from worker import stop_deadline

log = structlog.get_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
_POLL_SECONDS = 0.02


class Draining:
    """Stops a worker.

    Args:
        consumer: Celery's, of the worker.
        interrupt: Interrupts all attempts.
        seconds: How long they may go on.
    """

    def __init__(self, consumer: Any, interrupt: Callable[[], None], seconds: float) -> None:
        self._consumer = consumer
        self._interrupt = interrupt
        self._seconds = seconds
        self._thread = threading.Thread(target=self._drain, name="draining", daemon=True)
        # Signals may arrive during the handler of another one. A lock or an event could be held then.
        self._calls = itertools.count()
        self._is_urgent = False

    def install(self) -> None:
        """Replace Celery's handlers of the signals to stop. Call it in the main thread."""
        for number in _SIGNALS:
            signal.signal(number, self._on_signal)

    def begin(self) -> bool:
        """Begin to drain. Calling it again does nothing, and returns False."""
        if next(self._calls) > 0:
            return False
        self._thread.start()
        return True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if not self.begin():
            self._is_urgent = True

    def _drain(self) -> None:
        stop_deadline.begin(self._seconds + stop_deadline.GRACE_SECONDS)
        log.info("worker stopping", tasks=len(state.active_requests), seconds=self._seconds)
        for queue in list(self._consumer.app.amqp.queues.consume_from):
            self._consumer.call_soon(self._consumer.cancel_task_queue, queue)
        deadline = time.monotonic() + self._seconds
        while state.active_requests and not self._is_urgent and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        self._interrupt()
        while state.active_requests:
            time.sleep(_POLL_SECONDS)
        state.should_stop = os.EX_OK
