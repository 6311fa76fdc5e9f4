"""The folder in which the processes of one server keep their numbers, for the one that is asked for all of them.

Each start has a new one: numbers of processes that are long gone must not come back. Whoever makes it does so before
anything loads `metrics.py`.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def make() -> None:
    """Makes it for this process and those that it will fork; it is deleted when this process ends.

    Called again, as gunicorn does when it reads its configuration anew, it does nothing.
    """
    prefix = f"promptwire-metrics-{os.getpid()}-"
    if Path(os.environ.get(_VARIABLE, "")).name.startswith(prefix):
        return
    os.environ[_VARIABLE] = tempfile.mkdtemp(prefix=prefix)
    atexit.register(_remove, Path(os.environ[_VARIABLE]), os.getpid())


def forget(pid: int) -> None:
    """Drops the gauges of a process that has ended. Its counters stay: they only go up."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)


def forget_dead() -> None:
    """Drops the gauges of all processes that have ended."""
    for pid in {int(file.stem.rpartition("_")[2]) for file in Path(os.environ[_VARIABLE]).glob("gauge_*.db")}:
        if not _lives(pid):
            forget(pid)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # forked processes have this handler, too
        shutil.rmtree(folder, ignore_errors=True)
