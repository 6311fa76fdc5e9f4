"""Interruptions of attempts from another thread: gentle ones, and exceptions that are raised in the thread."""

import contextlib
import socket
import subprocess
import sys
import threading
import time

import pytest

from shared.providers import interruption
from shared.providers.interruption import Interruption
from tests.support.servers import MAX_WAIT_SECONDS, ROOT
from worker.async_exception import AsyncException


class StopError(Exception):
    """The reason of an interruption."""


def test_a_thread_that_waits_for_a_socket_goes_on_when_it_is_interrupted() -> None:
    interrupted = Interruption()
    ours, theirs = socket.socketpair()
    with ours, theirs, interrupted.calling(lambda: ours.shutdown(socket.SHUT_RDWR)):
        threading.Timer(0.05, interrupted.set, [StopError()]).start()
        assert ours.recv(1) == b""
        with pytest.raises(StopError):
            interrupted.check()


def test_a_callback_is_not_called_after_its_block() -> None:
    interrupted, called = Interruption(), []
    with interrupted.calling(lambda: called.append(1)):
        pass
    interrupted.set(StopError())
    assert called == []


def test_a_callback_that_fails_stops_neither_the_others_nor_who_interrupts() -> None:
    """For example the shutdown of a socket that the server has closed."""
    interrupted, called = Interruption(), []
    closed = socket.socket()
    with interrupted.calling(lambda: closed.shutdown(socket.SHUT_RDWR)), interrupted.calling(lambda: called.append(1)):
        interrupted.set(StopError())
    closed.close()
    assert called == [1]


def test_an_interrupted_attempt_does_not_begin_to_wait() -> None:
    interrupted = Interruption()
    interrupted.set(StopError())
    with pytest.raises(StopError), interrupted.calling(lambda: None):
        raise AssertionError("it waits")


def test_the_first_reason_stays() -> None:
    interrupted, first = Interruption(), StopError()
    interrupted.set(first)
    interrupted.set(StopError())
    assert interrupted.reason is first


def test_each_thread_has_its_own_current_interruption() -> None:
    ours, seen = Interruption(), []
    with interruption.attached(ours):
        thread = threading.Thread(target=lambda: seen.append(interruption.current()))
        thread.start()
        thread.join(MAX_WAIT_SECONDS)
        assert interruption.current() is ours
    assert seen[0] is not ours
    assert interruption.current() is not ours


def test_an_exception_ends_code_that_never_looks_at_its_interruption() -> None:
    exception, running, ended = AsyncException(StopError), threading.Event(), threading.Event()

    def spin() -> None:
        try:
            with exception.deliverable():
                running.set()
                while True:
                    pass
        except StopError:
            ended.set()

    threading.Thread(target=spin, daemon=True).start()
    running.wait(MAX_WAIT_SECONDS)
    exception.deliver()
    assert ended.wait(MAX_WAIT_SECONDS)


def test_an_exception_is_never_raised_after_its_block() -> None:
    """The delivery races with the end of the block, again and again."""
    for _ in range(300):
        exception, entered = AsyncException(StopError), threading.Event()
        thread = threading.Thread(target=lambda: entered.wait() and exception.deliver())  # noqa: B023
        thread.start()  # not within the block: a thread that is interrupted while it starts another breaks `threading`
        with contextlib.suppress(StopError), exception.deliverable():
            entered.set()
        thread.join(MAX_WAIT_SECONDS)
        time.sleep(0)
    for _ in range(1000):  # an exception that is still to come would be raised here
        threading.Event().is_set()


def test_a_profiler_or_debugger_goes_on_after_the_block() -> None:
    """In CPython 3.11 it would wait for ever for an exception that is announced and not there."""
    code = """
import cProfile
from worker.async_exception import AsyncException
def work():
    with AsyncException(KeyError).deliverable():
        pass
    for _ in range(10):
        (lambda: None)()
cProfile.run("work()")
"""
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, timeout=MAX_WAIT_SECONDS
    )
