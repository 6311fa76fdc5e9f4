"""Gauges that are sampled once a second."""

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

INTERVAL_SECONDS = 1.0
_STATM = Path("/proc/self/statm")

Probe = Callable[[], float]


class Sampler:
    """Sets gauges and writes buffered metrics, from a thread (a greenlet, under gevent).

    Args:
        gauges: How to measure each.
        times_loop: Whether to record how late the sampler wakes up, which is how long an event loop keeps all waiting.
    """

    def __init__(self, gauges: dict[Gauge, Probe], *, times_loop: bool = False) -> None:
        self._gauges = gauges
        self._times_loop = times_loop
        self._cpu_seconds = 0.0

    def start(self) -> None:
        threading.Thread(target=self._run, name="sampler", daemon=True).start()

    def _run(self) -> None:
        while True:
            due = time.monotonic() + INTERVAL_SECONDS
            time.sleep(INTERVAL_SECONDS)
            if self._times_loop:
                metrics.loop_lag.observe(max(0.0, time.monotonic() - due))
            with metrics.fork_lock:
                self.sample()

    def sample(self) -> None:
        for gauge, probe in self._gauges.items():
            gauge.set(probe())
        metrics.resident_bytes.set(_resident_bytes())
        previous, self._cpu_seconds = self._cpu_seconds, time.process_time()
        metrics.cpu_seconds.inc(self._cpu_seconds - previous)
        metrics.flush()


def engine_gauges(*engines: Engine) -> dict[Gauge, Probe]:
    """Gauges of the engines' connections."""
    pools = [engine.pool for engine in engines if isinstance(engine.pool, QueuePool)]
    return {
        metrics.connections_in_use: lambda: sum(pool.checkedout() for pool in pools),
        metrics.connections_max: lambda: sum(pool.size() for pool in pools),
    }


def _resident_bytes() -> int:
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # Only the peak is known here. macOS counts in bytes, others in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
