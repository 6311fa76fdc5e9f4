"""The folder in which the processes of one server keep their metrics, so that any of them can render all.

Each start has a new folder, without the metrics of earlier processes. Make it before `metrics.py` is imported.

A server that is killed leaves its folder behind; the next one that starts removes it. A lock says which folder is in
use: it lasts until the server and its children have ended, and holds between containers that share a disk, too.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX = "promptwire-metrics-"
_LOCK = "lock"


def make() -> None:
    """Make the folder for this process and its children, and delete it when this process ends.

    A second call does nothing: gunicorn reads its configuration again on SIGHUP.
    """
    prefix = f"{_PREFIX}{os.getpid()}-"
    if Path(os.environ.get(_VARIABLE, "")).name.startswith(prefix):
        return
    _remove_abandoned()
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    _lock(folder)
    os.environ[_VARIABLE] = str(folder)
    atexit.register(_remove, folder, os.getpid())


def forget(pid: int) -> None:
    """Drop the gauges of a process that has ended. Its counters stay, because counters only go up."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(pid)


def forget_dead() -> None:
    """Drop the gauges of all processes that have ended."""
    for pid in {int(file.stem.rpartition("_")[2]) for file in Path(os.environ[_VARIABLE]).glob("gauge_*.db")}:
        if not _is_running(pid):
            forget(pid)


def _lock(folder: Path) -> None:
    """Lock the folder for this process and its children, until all of them have ended."""
    descriptor = os.open(folder / "unlocked", os.O_CREAT | os.O_RDWR, 0o600)  # stays open
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    (folder / "unlocked").rename(folder / _LOCK)


def _remove_abandoned() -> None:
    """Remove the folders of this user whose processes have ended."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)


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
