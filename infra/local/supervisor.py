"""Keeps processes running, and prints their output with a prefix for each.

honcho starts the processes and multiplexes their output. It stops everything when one process ends, so the restarts
with back-off are implemented here.
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

from honcho.printer import Message, Printer
from honcho.process import Popen, Process

_COLOURS = ("36", "33", "32", "35", "34", "31")
_MIN_RESTART_PAUSE, _MAX_RESTART_PAUSE = 0.5, 10.0  # in seconds
_STABLE_SECONDS = 10.0  # a process that ran this long restarts after the minimum pause


@dataclass
class ProcessSpec:
    """A process to keep running. `popen` contains further arguments for Popen, such as the user."""

    name: str
    command: Sequence[str]
    env: dict[str, str] | None = None
    popen: dict[str, Any] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM


@dataclass
class _Running:
    spec: ProcessSpec
    thread: threading.Thread | None = None
    process: Popen | None = None


class _Process(Process):  # type: ignore[misc]
    """A honcho process, started from a list of arguments and with our own arguments for Popen."""

    def __init__(self, spec: ProcessSpec, colour: str, on_start: Callable[[Popen], None]) -> None:
        super().__init__(list(spec.command), name=spec.name, colour=colour, env=spec.env)
        start = partial(Popen, shell=False, stdin=DEVNULL, **spec.popen)

        def tracked(*args: Any, **kwargs: Any) -> Popen:
            child = start(*args, **kwargs)
            on_start(child)
            return child

        self._child_ctor = tracked


class Supervisor:
    """Starts processes and restarts those that die.

    `on_change` is called with all process ids whenever they change, so that they can be found after a crash.
    """

    def __init__(self, on_change: Callable[[list[int]], None]) -> None:
        self._messages: queue.Queue[Any] = queue.Queue()
        self._running: list[_Running] = []
        self._stopping = threading.Event()
        self._on_change = on_change
        self._lock = threading.Lock()
        self._printing = threading.Thread(target=self._print, name="printer", daemon=True)
        self._printing.start()

    def start(self, spec: ProcessSpec) -> None:
        running = _Running(spec)
        colour = _COLOURS[len(self._running) % len(_COLOURS)]
        self._running.append(running)
        running.thread = threading.Thread(target=self._keep, args=[running, colour], name=spec.name, daemon=True)
        running.thread.start()

    def say(self, text: str) -> None:
        """Print a line of the supervisor's own."""
        self._messages.put(Message("line", text, datetime.now(), "up", None))  # noqa: DTZ005

    def flush(self) -> None:
        """Wait until everything said so far is printed."""
        self._messages.join()

    def stop(self, names: Sequence[str], seconds: float) -> None:
        """Stop these processes in parallel, and kill those that still run after this many seconds."""
        self._stopping.set()
        chosen = [running for running in self._running if running.spec.name in names]
        for running in chosen:
            _signal(running.process, running.spec.stop_signal)
        deadline = time.monotonic() + seconds
        for running in chosen:
            if running.thread is not None:
                running.thread.join(max(0.0, deadline - time.monotonic()))
        for running in chosen:
            if running.process is not None:
                _kill_group(running.process.pid)

    def _keep(self, running: _Running, colour: str) -> None:
        pause = _MIN_RESTART_PAUSE
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                _Process(running.spec, colour, partial(self._started, running)).run(self._messages)
            except OSError as error:
                self.say(f"{running.spec.name} cannot be started: {error}")
            code = None if running.process is None else running.process.returncode
            if running.process is not None:
                _kill_group(running.process.pid)  # children that still run
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _STABLE_SECONDS:
                pause = _MIN_RESTART_PAUSE
            self.say(f"{running.spec.name} ended ({_describe_exit(code)}); restarting in {pause:g} s")
            self._stopping.wait(pause)
            pause = min(pause * 2, _MAX_RESTART_PAUSE)

    def _started(self, running: _Running, process: Popen) -> None:
        running.process = process
        with self._lock:
            self._on_change([r.process.pid for r in self._running if r.process is not None])

    def _print(self) -> None:
        # No time: each process logs its own.
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
    """Kill the rest of a process group, whose leader may have ended."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "not started"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
