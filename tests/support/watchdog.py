"""Kills what a test run has started if the run itself is interrupted or killed.

A fixture's clean-up does not run after kill -9, nor in pytest-xdist's workers after Ctrl-C. So each pytest process has
a watchdog: a process that reads ids of processes and paths of folders from a pipe. The kernel closes the pipe however
pytest ends; then the watchdog kills those processes with their descendants, and deletes the folders.

(PR_SET_PDEATHSIG would need no process of its own, but it fires when the thread that forked ends, and not for
grandchildren.)
"""

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

_PROCESS, _FOLDER, _DELETED = "process", "folder", "deleted"
_KILL_SECONDS = 10


class _Watchdog:
    """The watchdog's process, from pytest's side. It starts when there is something to watch."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def tell(self, kind: str, value: object) -> None:
        with self._lock:
            if self._process is None:
                self._process = self._start()
            self._process.stdin.write(f"{kind} {value}\n")
            self._process.stdin.flush()

    @staticmethod
    def _start() -> subprocess.Popen:
        # In a session of its own, so that Ctrl-C does not reach it.
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

        def end() -> None:
            process.stdin.close()
            process.wait(3 * _KILL_SECONDS)

        atexit.register(end)
        return process


_watchdog = _Watchdog()


def watch(pid: int) -> None:
    """Has this process and its descendants killed if they outlive pytest."""
    _watchdog.tell(_PROCESS, pid)


def watch_folder(folder: Path) -> None:
    """Has this folder deleted if it outlives pytest."""
    _watchdog.tell(_FOLDER, folder)


def unwatch_folder(folder: Path) -> None:
    _watchdog.tell(_DELETED, folder)


def _run(lines: Iterable[str]) -> None:
    """Watches until the pipe is closed."""
    processes: list[psutil.Process] = []
    folders: set[str] = set()
    for line in lines:
        kind, _, value = line.rstrip("\n").partition(" ")
        if kind == _PROCESS:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(int(value)))
        elif kind == _FOLDER:
            folders.add(value)
        else:
            folders.discard(value)
    deadline = time.monotonic() + _KILL_SECONDS
    # Several times, because a process may start another one before it is killed.
    while (left := _running(processes)) and time.monotonic() < deadline:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=0.1)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The families of these processes, without what is dead and only waits for its parent."""
    found = []
    for process in _families(processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _families(processes: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    """Those that still run, with their descendants, and what is left of the process groups of the others."""
    # An id that another process has by now is not the id of one of our groups any more.
    leaders = {process.pid for process in processes if process.is_running() or not psutil.pid_exists(process.pid)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if process.pid not in leaders and os.getpgid(process.pid) in leaders:
                yield process
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running():
                yield from process.children(recursive=True)
                yield process


if __name__ == "__main__":
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    _run(sys.stdin)
