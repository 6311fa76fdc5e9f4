"""Waking up Celery's event loop from the threads of the pool.

A task that has ended in a thread has its message acknowledged by the loop, which frees a place for the next message.
Celery's `call_soon` adds that to what the loop does next, but does not wake it up: it could sleep for a second, and a
worker with two threads answered two prompts a second.
"""

import socket
import threading
from contextlib import suppress
from typing import Any

from celery import bootsteps


class WakeUpStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """A part of the Celery consumer, which restarts with each connection: other threads' calls wake up its loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    _sockets: tuple[socket.socket, socket.socket] | None = None

    def start(self, parent: Any) -> None:
        self._close()
        self._sockets = inner, outer = socket.socketpair()
        for each in self._sockets:
            each.setblocking(False)
        call_soon, loop_thread = type(parent).call_soon, threading.get_ident()

        def call_soon_and_wake_up(*arguments: Any, **options: Any) -> Any:
            promise = call_soon(parent, *arguments, **options)
            if threading.get_ident() != loop_thread:
                with suppress(OSError):  # it is full, so the loop wakes up anyway; or the connection has ended
                    outer.send(b"\0")
            return promise

        parent.call_soon = call_soon_and_wake_up
        parent.hub.add_reader(inner.fileno(), _empty, inner)

    def stop(self, parent: Any) -> None:
        if self._sockets is not None and parent.hub is not None:
            parent.hub.remove(self._sockets[0].fileno())
        self._close()

    shutdown = terminate = stop

    def _close(self) -> None:
        sockets, self._sockets = self._sockets, None
        for each in sockets or ():
            each.close()


def _empty(inner: socket.socket) -> None:
    with suppress(BlockingIOError):
        while inner.recv(4_096):
            pass
