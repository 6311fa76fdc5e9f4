"""What is looked at once a second, rather than noted whenever it changes."""

import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from prometheus_client import Gauge
from sqlalchemy import Engine
from sqlalchemy.pool import QueuePool

from shared.telemetry import metrics

SECONDS = 1.0
_STATM = Path("/proc/self/statm")

Look = Callable[[], float]


class Sampler:
    """Sets gauges, and writes what the process has gathered, from a thread (a greenlet, under gevent).

    Args:
        gauges: What each is to show.
        times_loop: Whether it notes how late it is woken up, which in an event loop is how long everybody waits.
    """

    def __init__(self, gauges: dict[Gauge, Look], *, times_loop: bool = False) -> None:
        self._gauges = gauges
        self._times_loop = times_loop
        self._cpu_seconds = 0.0

    def start(self) -> None:
        threading.Thread(target=self._run, name="sampler", daemon=True).start()

    def _run(self) -> None:
        while True:
            due = time.monotonic() + SECONDS
            time.sleep(SECONDS)
            if self._times_loop:
                metrics.loop_lag.add(max(0.0, time.monotonic() - due))
            with metrics.fork_lock:
                self.sample()

    def sample(self) -> None:
        for gauge, look in self._gauges.items():
            gauge.set(look())
        metrics.resident_bytes.set(_resident_bytes())
        used, self._cpu_seconds = self._cpu_seconds, time.process_time()
        metrics.cpu_seconds.inc(self._cpu_seconds - used)
        metrics.flush()


def engine_gauges(*engines: Engine) -> dict[Gauge, Look]:
    """The gauges of their connections."""
    pools = [engine.pool for engine in engines if isinstance(engine.pool, QueuePool)]
    return {
        metrics.connections_in_use: lambda: sum(pool.checkedout() for pool in pools),
        metrics.connections_most: lambda: sum(pool.size() for pool in pools),
    }


def _resident_bytes() -> int:
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # The most that it has been. macOS counts in bytes, others in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
