"""Valkey and Postgres are killed, started again, and stalled."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import Run, under_load
from tests.faults.scale import Scale

_AWAY_SECONDS = 1.0
_BETWEEN_SECONDS = 1.0


def broker_restarts(cluster: Cluster, scale: Scale) -> Outcome:
    """Valkey is killed with tasks in flight, and comes back after a second.

    Recovery, here and below: from the moment the server answers again until a prompt submitted after it has ended.
    """
    away = cluster.servers.valkey_process.killed
    return _again_and_again(cluster, "Valkey killed", scale.broker_restarts, away, _AWAY_SECONDS)


def broker_stalls(cluster: Cluster, scale: Scale) -> Outcome:
    """Valkey keeps its connections and does not answer, for longer than every timeout."""
    away, seconds = cluster.servers.valkey_process.stalled, scale.broker_stall_seconds
    outcome = _again_and_again(cluster, f"Valkey stalled {seconds:g} s", scale.broker_stalls, away, seconds)
    for kind, p99 in outcome.p99_seconds.items():
        outcome.bound(p99, 1, f"99th percentile of {kind} with Redis stalled")
    return outcome


def postgres_restarts(cluster: Cluster, scale: Scale) -> Outcome:
    """Postgres is killed under load, and comes back after a second."""
    away = cluster.servers.postgres_process.killed
    return _again_and_again(cluster, "Postgres killed", scale.postgres_restarts, away, _AWAY_SECONDS)


def postgres_stalls(cluster: Cluster, scale: Scale) -> Outcome:
    """Postgres keeps its connections and does not answer."""
    away, seconds = cluster.servers.postgres_process.stalled, scale.postgres_stall_seconds
    return _again_and_again(cluster, f"Postgres stalled {seconds:g} s", scale.postgres_stalls, away, seconds)


def _again_and_again(
    cluster: Cluster, name: str, times: int, away: Callable[[], AbstractContextManager[None]], seconds: float
) -> Outcome:
    """A server is away for so many seconds, so many times, each with work in flight."""
    with under_load(cluster, name, share_of_slow=0.5) as run:
        for _ in range(times):
            run.expect(lambda: bool(run.witness.held()), 30, "work in flight")
            begun = time.monotonic()
            with away():
                time.sleep(seconds)
                run.away.append((begun, time.monotonic()))
            run.outcome.faults += 1
            run.consuming_again()
            run.pause(_BETWEEN_SECONDS)
    return _within_bounds(run)


def _within_bounds(run: Run) -> Outcome:
    outcome = run.outcome
    outcome.bound(outcome.slowest_recovery, 30, "consuming again")
    refused = [call.seconds for call in run.calls if call.answer == 503]
    if refused:
        outcome.bound(max(refused), 3, "the slowest 503")
        outcome.notes = f"slowest 503 {max(refused):.2f} s"
    return outcome
