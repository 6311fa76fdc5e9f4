"""Keeps processes running, and passes on what they print."""

import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

from infra.local.output import Output

_COLOURS = ("36", "33", "32", "35", "34", "31")
_MIN_RESTART_PAUSE, _MAX_RESTART_PAUSE = 0.5, 10.0  # in seconds
_STABLE_SECONDS = 10.0  # a process that ran this long restarts after the minimum pause
_MAX_LINE_BYTES = 16 * 1024  # a longer line is printed as several
_LAST_LINES = 1_000  # a crash report of Valkey has some 400
_FLUSH_SECONDS = 1.0


@dataclass
class ProcessSpec:
    """A process to keep running. `popen` contains further arguments for Popen, such as the user."""

    name: str
    command: Sequence[str]
    env: dict[str, str] | None = None
    popen: dict[str, Any] = field(default_factory=dict)
    stop_signal: signal.Signals = signal.SIGTERM
    #: Lines that are not printed.
    chatter: re.Pattern[str] | None = None
    #: Called with its last lines before it is restarted. Returns what to say about what it did, if anything.
    repair: Callable[[Sequence[str]], str | None] = lambda _: None


@dataclass
class _Running:
    spec: ProcessSpec
    colour: str
    thread: threading.Thread | None = None
    process: "subprocess.Popen[bytes] | None" = None
    exits: int = 0
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))


class Supervisor:
    """Starts processes and restarts those that die.

    `on_change` is called with all process ids whenever they change, so that they can be found after a crash.
    """

    def __init__(self, on_change: Callable[[list[int]], None], output: Output) -> None:
        self._output = output
        self._running: list[_Running] = []
        self._stopping = threading.Event()
        self._on_change = on_change
        self._lock = threading.Lock()

    def start(self, spec: ProcessSpec) -> None:
        running = _Running(spec, _COLOURS[len(self._running) % len(_COLOURS)])
        self._running.append(running)
        running.thread = threading.Thread(target=self._keep, args=[running], name=spec.name, daemon=True)
        running.thread.start()

    def say(self, text: str) -> None:
        """Print a line of the supervisor's own."""
        self._output.write("up", text)

    def flush(self) -> None:
        """Wait until everything said so far is printed, but not for a reader that does not read."""
        self._output.flush(_FLUSH_SECONDS)

    def exits(self, name: str) -> int:
        """How often this process has ended."""
        return sum(running.exits for running in self._running if running.spec.name == name)

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

    def _keep(self, running: _Running) -> None:
        name = running.spec.name
        pause = _MIN_RESTART_PAUSE
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                ending = _describe_exit(self._run(running))
            except OSError as error:
                ending = f"cannot be started: {error}"
            running.exits += 1
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _STABLE_SECONDS:
                pause = _MIN_RESTART_PAUSE
            self.say(f"{name} ended ({ending}); restarting in {pause:g} s")
            self._repair(running)
            self._stopping.wait(pause)
            pause = min(pause * 2, _MAX_RESTART_PAUSE)

    def _repair(self, running: _Running) -> None:
        try:
            done = running.spec.repair(list(running.last_lines))
        except OSError as error:
            done = f"its data cannot be repaired: {error}"
        if done:
            self.say(f"{running.spec.name}: {done}")

    def _run(self, running: _Running) -> int:
        """Run the process once. Returns its exit code. Raises OSError if it cannot be started."""
        spec = running.spec
        process = subprocess.Popen(
            spec.command,
            env=spec.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,  # other users may not read what it writes
            **spec.popen,
        )
        running.process = process
        running.last_lines.clear()
        if self._stopping.is_set():  # `stop` did not see it
            _signal(process, spec.stop_signal)
        self._note_processes()
        reader = threading.Thread(target=self._read, args=[running, process.stdout], daemon=True)
        reader.start()
        code = process.wait()
        _kill_group(process.pid)  # children that still run
        reader.join()
        return code

    def _read(self, running: _Running, printed: IO[bytes]) -> None:
        with printed:
            for line in iter(partial(printed.readline, _MAX_LINE_BYTES), b""):
                text = line.decode(errors="replace").rstrip("\r\n")
                running.last_lines.append(text)
                if running.spec.chatter is None or not running.spec.chatter.search(text):
                    self._output.write(running.spec.name, text, running.colour)

    def _note_processes(self) -> None:
        with self._lock:
            try:
                self._on_change([r.process.pid for r in self._running if r.process is not None])
            except OSError as error:  # a full disk must not keep a process from being restarted
                self.say(f"the list of processes cannot be written: {error}")


def _signal(process: "subprocess.Popen[bytes] | None", number: signal.Signals) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(number)


def _kill_group(pid: int) -> None:
    """Kill the rest of a process group, whose leader may have ended."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _describe_exit(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
