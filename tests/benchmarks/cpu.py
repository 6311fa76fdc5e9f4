"""How much of a processor work takes, here and in servers: what others do on the machine does not count."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.support.servers import Servers

Cpu = Callable[[], float]


def of_this_process() -> float:
    """Seconds of CPU that this process has taken, in all its threads."""
    return time.process_time()


def of_families(pids: Sequence[int], *, and_this: bool) -> Cpu:
    """The same of these processes and of all that they have started; and of this process, if it works too."""

    def cpu() -> float:
        return (time.process_time() if and_this else 0.0) + sum(map(_of, family(pids)))

    return cpu


def family(pids: Sequence[int]) -> list[int]:
    """These processes, and all that they have started and that still run."""
    roots = [psutil.Process(pid) for pid in pids]
    return [process.pid for root in roots for process in (root, *root.children(recursive=True))]


def server_pid(servers: Servers) -> int:
    """The process of our PostgreSQL; what serves connections are its children."""
    path = Path(servers.postgres.folder, "postmaster.pid")
    return int(path.read_text().split()[0])


def _of(pid: int) -> float:
    """Seconds, by two counts of Linux: in nanoseconds, of the threads there are; in ticks, of those that ended too.

    With those of its children that have ended: a server that forks for each connection has most of its work there.
    """
    running, ticks, ended = 0, 0.0, 0.0
    with contextlib.suppress(OSError, psutil.NoSuchProcess):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                running += int((task / "schedstat").read_text().split()[0])
        times = psutil.Process(pid).cpu_times()
        ticks = times.user + times.system
        ended = times.children_user + times.children_system
    return max(running / 1e9, ticks) + ended
