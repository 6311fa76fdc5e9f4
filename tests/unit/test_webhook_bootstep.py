"""The part of a Celery worker that delivers to webhooks."""

import threading

from tests.support.servers import MAX_WAIT_SECONDS
from worker.webhooks.bootstep import as_bootstep


class _Stuck:
    """A deliverer whose requests hang when it is stopped."""

    def __init__(self) -> None:
        self.is_stopping, self.ends = threading.Event(), threading.Event()
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.thread = threading.current_thread()
        self.is_stopping.set()
        self.ends.wait(MAX_WAIT_SECONDS)


def test_requests_that_hang_do_not_delay_the_stop_of_the_tasks_and_the_process_waits_for_them() -> None:
    deliverer = _Stuck()
    step = as_bootstep(lambda: deliverer)(None)
    step.start(None)
    step.stop(None)  # it returns, and Celery stops the tasks
    assert deliverer.is_stopping.wait(MAX_WAIT_SECONDS)
    assert not deliverer.thread.daemon  # the interpreter waits for it
    deliverer.ends.set()
    deliverer.thread.join(MAX_WAIT_SECONDS)
