"""Valkey and Postgres are killed, started again, and stalled."""

import time

from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import Run, under_load
from tests.faults.scale import Scale
from tests.support.servers import ServerProcess

_AWAY_SECONDS = 1.0
_BETWEEN_SECONDS = 1.0


def broker_restarts(cluster: Cluster, scale: Scale) -> Outcome:
    """Valkey is killed with tasks in flight, and comes back after a second.

    Recovery, here and below: from the moment the server answers again until a prompt submitted after it has ended.
    """
    with under_load(cluster, "Valkey killed", share_of_slow=0.5) as run:
        for _ in range(scale.broker_restarts):
            _restart(run, cluster.servers.valkey_process)
    return _within_bounds(run)


def broker_stalls(cluster: Cluster, scale: Scale) -> Outcome:
    """Valkey keeps its connections and does not answer, for longer than every timeout."""
    with under_load(cluster, f"Valkey stalled {scale.broker_stall_seconds:g} s", share_of_slow=0.5) as run:
        for _ in range(scale.broker_stalls):
            _stall(run, cluster.servers.valkey_process, scale.broker_stall_seconds)
    for kind, seconds in run.outcome.p99_seconds.items():
        run.outcome.bound(seconds, 1, f"99th percentile of {kind} with Redis stalled")
    return _within_bounds(run)


def postgres_restarts(cluster: Cluster, scale: Scale) -> Outcome:
    """Postgres is killed under load, and comes back after a second."""
    with under_load(cluster, "Postgres killed", share_of_slow=0.5) as run:
        for _ in range(scale.postgres_restarts):
            _restart(run, cluster.servers.postgres_process)
    return _within_bounds(run)


def postgres_stalls(cluster: Cluster, scale: Scale) -> Outcome:
    """Postgres keeps its connections and does not answer."""
    with under_load(cluster, f"Postgres stalled {scale.postgres_stall_seconds:g} s", share_of_slow=0.5) as run:
        for _ in range(scale.postgres_stalls):
            _stall(run, cluster.servers.postgres_process, scale.postgres_stall_seconds)
    return _within_bounds(run)


def _restart(run: Run, server: ServerProcess) -> None:
    run.expect(lambda: bool(run.witness.held()), 30, "work in flight")
    begun = time.monotonic()
    server.kill()
    time.sleep(_AWAY_SECONDS)
    run.away.append((begun, time.monotonic()))
    server.start()
    _over(run)


def _stall(run: Run, server: ServerProcess, seconds: float) -> None:
    run.expect(lambda: bool(run.witness.held()), 30, "work in flight")
    begun = time.monotonic()
    with server.stalled():
        time.sleep(seconds)
        run.away.append((begun, time.monotonic()))
    _over(run)


def _over(run: Run) -> None:
    run.outcome.faults += 1
    run.consuming_again()
    run.wait(lambda: False, _BETWEEN_SECONDS)


def _within_bounds(run: Run) -> Outcome:
    outcome = run.outcome
    outcome.bound(outcome.slowest_recovery, 30, "consuming again")
    refused = [call.seconds for call in run.calls if call.answer == 503]
    if refused:
        outcome.bound(max(refused), 3, "the slowest 503")
        outcome.notes = f"slowest 503 {max(refused):.2f} s"
    return outcome
