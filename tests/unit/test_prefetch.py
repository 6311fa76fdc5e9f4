"""After its broker was unavailable, a worker uses its whole pool again as soon as the tasks from before have ended."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state

from shared.messaging.queue import make_celery
from tests.support.servers import make_settings
from worker import heartbeat
from worker.prefetch import PrefetchStep


class Request:
    """A task that runs."""


class Timer:
    """Keeps the repeated call."""

    call: Callable[[], None] | None = None
    is_cancelled = False

    def call_repeatedly(self, _: float, function: Callable[..., None], arguments: tuple[Any, ...]) -> "Timer":
        self.call = lambda: function(*arguments)
        return self

    def cancel(self) -> None:
        self.is_cancelled = True


@pytest.fixture
def running() -> Iterator[list[Request]]:
    """Three tasks that run."""
    requests = [Request() for _ in range(3)]
    state.active_requests.update(requests)
    yield requests
    for request in requests:
        state.active_requests.discard(request)


@pytest.fixture
def consumer() -> Any:
    return SimpleNamespace(
        pool=SimpleNamespace(num_processes=10), prefetch_multiplier=1, qos=SimpleNamespace(value=10), timer=Timer()
    )


def test_as_many_messages_are_taken_as_places_are_free(consumer: Any, running: list[Request]) -> None:
    PrefetchStep(consumer).start(consumer)
    assert consumer.qos.value == 7
    new = Request()
    state.active_requests.add(new)  # of the new connection, which counts it itself
    state.active_requests.discard(running[0])
    consumer.timer.call()
    assert (consumer.qos.value, consumer.timer.is_cancelled) == (8, False)
    for request in running:
        state.active_requests.discard(request)
    consumer.timer.call()
    assert (consumer.qos.value, consumer.timer.is_cancelled) == (10, True)


def test_a_full_pool_still_takes_a_message(consumer: Any, running: list[Request]) -> None:
    """Celery reads none as any number."""
    consumer.pool.num_processes = len(running)
    PrefetchStep(consumer).start(consumer)
    assert consumer.qos.value == 1


def test_a_new_worker_takes_as_many_as_its_pool_has_places(consumer: Any) -> None:
    PrefetchStep(consumer).start(consumer)
    assert (consumer.qos.value, consumer.timer.call) == (10, None)


@pytest.mark.parametrize("step", [PrefetchStep, heartbeat.as_bootstep(Path("heartbeat"))])
def test_a_worker_may_stop_before_it_has_started(consumer: Any, step: Any) -> None:
    """Its broker has never been available."""
    step(consumer).stop(consumer)


def test_celery_leaves_it_to_us() -> None:
    settings = make_settings()
    assert make_celery(settings).conf.worker_enable_prefetch_count_reduction is False
