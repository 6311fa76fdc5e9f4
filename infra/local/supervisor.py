"""Keeps processes running, and shows what they say with a prefix each.

honcho starts the processes and multiplexes their output; the restarts with back-off are ours, because honcho stops
everything when one process ends.
"""

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from subprocess import DEVNULL
from typing import Any

import psutil
from honcho.printer import Message, Printer
from honcho.process import Popen, Process

_COLOURS = ("36", "33", "32", "35", "34", "31")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0
_STABLE_SECONDS = 10.0  # after so long a run the next pause is the first again


@dataclass
class ProcessSpec:
    """A process to keep running. `popen` are further arguments for Popen, such as the user."""

    name: str
    command: Sequence[str]
    env: dict[str, str] | None = None
    popen: dict[str, Any] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM


@dataclass
class _Running:
    part: ProcessSpec
    thread: threading.Thread | None = None
    process: Popen | None = None


class _Process(Process):  # type: ignore[misc]
    """honcho's process, started from a list of arguments and with Popen arguments of ours."""

    def __init__(self, part: ProcessSpec, colour: str, on_start: Callable[[Popen], None]) -> None:
        super().__init__(list(part.command), name=part.name, colour=colour, env=part.env)
        start = partial(Popen, shell=False, stdin=DEVNULL, **part.popen)

        def tracked(*args: Any, **kwargs: Any) -> Popen:
            child = start(*args, **kwargs)
            on_start(child)
            return child

        self._child_ctor = tracked


class Supervisor:
    """Starts parts, restarts those that die, and stops them all in the reverse order.

    `on_change` is called with the process ids whenever they change, for those who must find them after a crash of ours.
    """

    def __init__(self, on_change: Callable[[list[int]], None]) -> None:
        self._messages: queue.Queue[Any] = queue.Queue()
        self._running: list[_Running] = []
        self._stopping = threading.Event()
        self._on_change = on_change
        self._lock = threading.Lock()
        self._printing = threading.Thread(target=self._print, name="printer", daemon=True)
        self._printing.start()

    def start(self, part: ProcessSpec) -> None:
        running = _Running(part)
        colour = _COLOURS[len(self._running) % len(_COLOURS)]
        self._running.append(running)
        running.thread = threading.Thread(target=self._keep, args=[running, colour], name=part.name, daemon=True)
        running.thread.start()

    def say(self, text: str) -> None:
        """Prints a line of our own."""
        self._messages.put(Message("line", text, datetime.now(), "up", None))  # noqa: DTZ005

    def flush(self) -> None:
        """Returns when everything said so far is printed."""
        self._messages.join()

    def stop(self, names: Sequence[str], seconds: float) -> None:
        """Stops these parts, in parallel; what still runs after so many seconds is killed."""
        self._stopping.set()
        chosen = [running for running in self._running if running.part.name in names]
        for running in chosen:
            _signal(running.process, running.part.stop_signal)
        deadline = time.monotonic() + seconds
        for running in chosen:
            if running.thread is not None:
                running.thread.join(max(0.0, deadline - time.monotonic()))
        for running in chosen:
            if running.process is not None:
                _kill_group(running.process.pid)

    def _keep(self, running: _Running, colour: str) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                _Process(running.part, colour, partial(self._started, running)).run(self._messages)
            except OSError as error:
                self.say(f"{running.part.name} cannot be started: {error}")
            code = None if running.process is None else running.process.returncode
            if running.process is not None:
                _kill_group(running.process.pid)  # children that outlived it
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _STABLE_SECONDS:
                pause = _FIRST_PAUSE
            self.say(f"{running.part.name} ended ({_how(code)}); it is started again in {pause:g} s")
            self._stopping.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _started(self, running: _Running, process: Popen) -> None:
        running.process = process
        with self._lock:
            self._on_change([r.process.pid for r in self._running if r.process is not None])

    def _print(self) -> None:
        # Each part writes the time itself.
        printer = Printer(time_format="", width=len("postgres"))
        while True:
            message = self._messages.get()
            if message.type == "line":
                printer.write(message)
            self._messages.task_done()


def _signal(process: Popen | None, number: signal.Signals) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(number)


def _kill_group(pid: int) -> None:
    """Kills what is left of a process that leads its own session."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _how(code: int | None) -> str:
    if code is None:
        return "not started"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def birth(pid: int) -> float | None:
    """When the process with this id began, in seconds since the epoch; None if there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None
