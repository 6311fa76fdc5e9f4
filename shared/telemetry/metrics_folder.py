"""The folder in which the processes of one server keep their metrics, so that any of them can render all.

Each start has a new folder, without the metrics of earlier processes. Make it before `metrics.py` is imported.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


def make() -> None:
    """Make the folder for this process and its children, and delete it when this process ends.

    A second call does nothing: gunicorn reads its configuration again on SIGHUP.
    """
    prefix = f"promptwire-metrics-{os.getpid()}-"
    if Path(os.environ.get(_VARIABLE, "")).name.startswith(prefix):
        return
    os.environ[_VARIABLE] = tempfile.mkdtemp(prefix=prefix)
    atexit.register(_remove, Path(os.environ[_VARIABLE]), os.getpid())


def forget(pid: int) -> None:
    """Drop the gauges of a process that has ended. Its counters stay, because counters only go up."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)


def forget_dead() -> None:
    """Drop the gauges of all processes that have ended."""
    for pid in {int(file.stem.rpartition("_")[2]) for file in Path(os.environ[_VARIABLE]).glob("gauge_*.db")}:
        if not _is_running(pid):
            forget(pid)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _remove(folder: Path, pid: int) -> None:
    if os.getpid() == pid:  # children inherit this handler
        shutil.rmtree(folder, ignore_errors=True)
