"""CPU time of this process and of servers, regardless of other load on the machine."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.support.servers import Servers

Cpu = Callable[[], float]


def of_this_process() -> float:
    """Return the CPU seconds that this process has used in all its threads."""
    return time.process_time()


def of_families(pids: Sequence[int], *, and_this: bool) -> Cpu:
    """Return a clock of the CPU seconds of these processes and their descendants, and of this process if asked for."""

    def cpu() -> float:
        return (time.process_time() if and_this else 0.0) + sum(map(_of, family(pids)))

    return cpu


def family(pids: Sequence[int]) -> list[int]:
    """Return these processes and their running descendants."""
    roots = [psutil.Process(pid) for pid in pids]
    return [process.pid for root in roots for process in (root, *root.children(recursive=True))]


def server_pid(servers: Servers) -> int:
    """Return the process id of our PostgreSQL server; its children serve the connections."""
    path = Path(servers.postgres.folder, "postmaster.pid")
    return int(path.read_text().split()[0])


def _of(pid: int) -> float:
    """Return CPU seconds by the larger of two counts: nanoseconds of the live threads, or ticks of all threads.

    Ended children are included: a server that forks for each connection does most of its work there.
    """
    running, ticks, ended = 0, 0.0, 0.0
    with contextlib.suppress(OSError, psutil.NoSuchProcess):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has just ended
                running += int((task / "schedstat").read_text().split()[0])
        times = psutil.Process(pid).cpu_times()
        ticks = times.user + times.system
        ended = times.children_user + times.children_system
    return max(running / 1e9, ticks) + ended
