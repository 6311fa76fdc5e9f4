"""How a worker's process exits."""

import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest
from celery.worker import state

from tests.support.servers import MAX_WAIT_SECONDS, ROOT, environment_of, make_settings
from worker import stop_deadline
from worker.draining import Draining

# `atexit` calls the function that is registered first at the very end.
_PROGRAM = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 10_000))
import worker.bootstrap
"""


def test_a_worker_exits_without_collecting_garbage() -> None:
    """The interpreter's last collections leave out what is frozen."""
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=os.environ | environment_of(make_settings()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=MAX_WAIT_SECONDS,
    )
    assert ran.stdout == "True\n"


_STUCK = """
import signal, sys, threading, time
from worker import stop_deadline
signal.signal(signal.SIGTERM, lambda *_: threading.Event().wait())
stop_deadline.install(0.2)
stop_deadline.install(0.2)
print("ready", flush=True)
while True:
    time.sleep(1)
"""


def test_a_worker_whose_stop_hangs_is_killed_after_its_deadline() -> None:
    with subprocess.Popen([sys.executable, "-c", _STUCK], cwd=ROOT, stdout=subprocess.PIPE, text=True) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == "ready\n"
        stuck.terminate()
        assert stuck.wait(timeout=MAX_WAIT_SECONDS) == 1


_STUCK_THREAD = """
import threading, types
from celery.worker import state
from worker import draining, stop_deadline
class Request:
    pass
request = Request()
state.active_requests.add(request)
stop_deadline.GRACE_SECONDS = 0.2
queues = types.SimpleNamespace(consume_from=[])
consumer = types.SimpleNamespace(app=types.SimpleNamespace(amqp=types.SimpleNamespace(queues=queues)))
draining.Draining(consumer, lambda: None, 0).begin()
threading.Event().wait()
"""


def test_a_worker_with_a_stuck_thread_ends_without_a_signal() -> None:
    """Otherwise it would take no more messages, and renew the lease of the stuck prompt, for ever."""
    with subprocess.Popen([sys.executable, "-c", _STUCK_THREAD], cwd=ROOT) as stuck:
        try:
            assert stuck.wait(timeout=MAX_WAIT_SECONDS) == 1
        finally:
            stuck.kill()


def test_a_signal_during_the_handler_of_another_interrupts_the_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator, or a supervisor, may send both at once. The attempts would go on for SOFT_SHUTDOWN_SECONDS."""
    monkeypatch.setattr(stop_deadline, "begin", lambda _seconds: None)
    monkeypatch.setattr(state, "should_stop", None)
    interrupted = threading.Event()
    monkeypatch.setattr(state, "active_requests", {object()})

    def interrupt() -> None:
        state.active_requests.clear()
        interrupted.set()

    consumer = SimpleNamespace(app=SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=[]))))
    draining = Draining(consumer, interrupt, 10 * MAX_WAIT_SECONDS)
    start = draining._thread.start

    def start_while_a_signal_arrives() -> None:
        draining._on_signal(signal.SIGQUIT, None)
        start()

    monkeypatch.setattr(draining._thread, "start", start_while_a_signal_arrives)
    draining._on_signal(signal.SIGTERM, None)
    assert interrupted.wait(MAX_WAIT_SECONDS)
    draining._thread.join(MAX_WAIT_SECONDS)
    assert state.should_stop == os.EX_OK
