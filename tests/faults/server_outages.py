"""Valkey and Postgres are killed and restarted, stalled, and refuse writes."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import cycle

from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import Run, under_load
from tests.faults.scale import Scale

_OUTAGE_SECONDS = 1.0
_SECONDS_BETWEEN_OUTAGES = 1.0


def broker_restarts(cluster: Cluster, scale: Scale) -> Outcome:
    """Kill Valkey with tasks in flight, and restart it after a second.

    Recovery, here and below: from the moment the server answers until a prompt submitted after that has ended.
    """
    outage = cluster.servers.valkey_process.killed
    return _repeat_outage(cluster, "Valkey killed", scale.broker_restarts, outage, _OUTAGE_SECONDS)


def broker_stalls(cluster: Cluster, scale: Scale) -> Outcome:
    """Stall Valkey for longer than every timeout: it keeps its connections and does not answer."""
    outage, seconds = cluster.servers.valkey_process.stalled, scale.broker_stall_seconds
    outcome = _repeat_outage(cluster, f"Valkey stalled {seconds:g} s", scale.broker_stalls, outage, seconds)
    for kind, p99 in outcome.p99_seconds.items():
        outcome.bound(p99, 1, f"99th percentile of {kind} with Redis stalled")
    return outcome


def postgres_restarts(cluster: Cluster, scale: Scale) -> Outcome:
    """Kill Postgres under load, and restart it after a second."""
    outage = cluster.servers.postgres_process.killed
    return _repeat_outage(cluster, "Postgres killed", scale.postgres_restarts, outage, _OUTAGE_SECONDS)


def postgres_stalls(cluster: Cluster, scale: Scale) -> Outcome:
    """Stall Postgres: it keeps its connections and does not answer."""
    outage, seconds = cluster.servers.postgres_process.stalled, scale.postgres_stall_seconds
    return _repeat_outage(cluster, f"Postgres stalled {seconds:g} s", scale.postgres_stalls, outage, seconds)


def postgres_read_only(cluster: Cluster, scale: Scale) -> Outcome:
    """Make Postgres read-only, as a failover may leave it: sessions stay open, and their writes fail."""
    seconds = scale.refusal_seconds
    name = f"Postgres read-only {seconds:g} s"
    return _repeat_outage(cluster, name, scale.refusals, cluster.servers.read_only, seconds)


def redis_refusals(cluster: Cluster, scale: Scale) -> Outcome:
    """Let Valkey answer and refuse writes: as a read-only replica, for lack of memory, with a disk that fails."""
    seconds, reasons = scale.refusal_seconds, cycle(("replica", "memory", "disk"))
    name = f"Valkey refuses writes {seconds:g} s"
    return _repeat_outage(cluster, name, scale.refusals, lambda: cluster.servers.redis_refusing(next(reasons)), seconds)


def _repeat_outage(
    cluster: Cluster, name: str, times: int, outage: Callable[[], AbstractContextManager[None]], seconds: float
) -> Outcome:
    """Make a server unavailable for `seconds`, `times` times, each with work in flight."""
    with under_load(cluster, name, share_of_slow=0.5) as run:
        for _ in range(times):
            run.expect(lambda: bool(run.recorder.claimed()), 30, "work in flight")
            started = time.monotonic()
            with outage():
                time.sleep(seconds)
                run.outages.append((started, time.monotonic()))
            run.outcome.faults += 1
            run.expect_consuming()
            run.pause(_SECONDS_BETWEEN_OUTAGES)
    return _check_bounds(run)


def _check_bounds(run: Run) -> Outcome:
    outcome = run.outcome
    outcome.bound(outcome.slowest_recovery, 30, "the first completion after an outage")
    unavailable = [call.seconds for call in run.calls if call.answer == 503]
    if unavailable:
        outcome.bound(max(unavailable), 3, "the slowest 503")
        outcome.notes = f"slowest 503 {max(unavailable):.2f} s"
    return outcome
