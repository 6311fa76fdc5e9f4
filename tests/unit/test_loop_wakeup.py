"""Celery's event loop is woken up by what threads give it to do."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
from kombu.asynchronous import Hub

from tests.support.servers import MAX_WAIT_SECONDS
from worker.loop_wakeup import WakeUpStep


class Consumer:
    """The part of Celery's consumer that the step uses."""

    def __init__(self) -> None:
        self.hub = Hub()

    def call_soon(self, function: Callable[[], Any]) -> Any:
        return self.hub.call_soon(function)

    def is_awake(self) -> bool:
        """Whether the loop has a reason not to sleep."""
        return bool(self.hub.poller.poll(0))


def in_thread(function: Callable[..., object], *arguments: object) -> None:
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    thread.join(MAX_WAIT_SECONDS)


@pytest.fixture
def called() -> list[str]:
    return []


def test_a_call_of_a_thread_wakes_up_the_loop_which_makes_it(called: list[str]) -> None:
    consumer = Consumer()
    step = WakeUpStep(consumer)
    step.start(consumer)
    in_thread(consumer.call_soon, lambda: called.append("it"))
    assert consumer.is_awake()
    loop = consumer.hub.create_loop()
    while not called or consumer.is_awake():
        next(loop)
    step.stop(consumer)
    assert called == ["it"]


def test_a_call_of_the_loop_itself_does_not() -> None:
    consumer = Consumer()
    step = WakeUpStep(consumer)
    step.start(consumer)
    consumer.call_soon(print)
    assert not consumer.is_awake()
    step.stop(consumer)


def test_it_works_with_each_new_connection_and_not_after_a_stop(called: list[str]) -> None:
    consumer = Consumer()
    step = WakeUpStep(consumer)
    for _ in range(3):
        step.start(consumer)
        in_thread(consumer.call_soon, lambda: called.append("it"))
        assert consumer.is_awake()
        step.stop(consumer)
        assert not consumer.is_awake()
    in_thread(consumer.call_soon, lambda: called.append("it"))  # a task may end while the worker reconnects
    assert len(consumer.hub._ready) == 4
