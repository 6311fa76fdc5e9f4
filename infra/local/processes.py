"""Ending processes by their ids."""

import os
import signal
import time

import psutil

_STOP_SECONDS = 5.0


def start_time(pid: int) -> float | None:
    """When the process with this id started, in seconds since the epoch; None if there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def end_processes(start_times: dict[int, float | None]) -> None:
    """Stop the processes with these ids and start times, then kill what is left of them and of their children.

    The start times tell these processes from later ones with the same ids.
    """
    running = [pid for pid, started in start_times.items() if started is not None and start_time(pid) == started]
    families = [process for pid in running for process in _family(pid)]
    for pid in running:
        _signal(pid)
    deadline = time.monotonic() + _STOP_SECONDS
    while any(psutil.pid_exists(pid) for pid in running) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in families:
        _kill(process)


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(pid: int) -> None:
    try:
        # SIGINT stops PostgreSQL without waiting for its clients.
        os.kill(pid, signal.SIGINT if "postgres" in psutil.Process(pid).name() else signal.SIGTERM)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()  # psutil compares the start time first
    except psutil.NoSuchProcess:
        return
