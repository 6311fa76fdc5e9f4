"""Giving a part of a service one core for itself: what several processes do on it, compared with one."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil


@contextlib.contextmanager
def separate(parts: Mapping[str, Sequence[int]], alone: str) -> Iterator[None]:
    """Run the part `alone` on the first core, and all others on the rest, while the block runs.

    Args:
        parts: Process ids, with whose children the parts run.
    """
    every = sorted(os.sched_getaffinity(0))
    try:
        for name, pids in parts.items():
            _pin(pids, every[:1] if name == alone else every[1:])
        yield
    finally:
        for pids in parts.values():
            _pin(pids, every)


def _pin(pids: Sequence[int], cores: Sequence[int]) -> None:
    """Restrict the processes with their children, and all their threads, to these cores. New ones inherit that."""
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                for thread in Path(f"/proc/{each.pid}/task").glob("*"):
                    with contextlib.suppress(OSError):  # it has ended
                        os.sched_setaffinity(int(thread.name), cores)
