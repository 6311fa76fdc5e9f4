"""The provider is unavailable, as after a network failure or with an account over its limits."""

import statistics
import time

from tests.faults.cluster import WORKER_CHILDREN, Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import under_load
from tests.faults.scale import Scale
from tests.support.providers import Commanded

#: The maximum number of calls per process while its pauses double from 1 s to 30 s. After that, one call per 30 s.
_MAX_CALLS = 6


def provider_outages(cluster: Cluster, scale: Scale) -> Outcome:
    """Let the provider refuse every call for a while. Prompts wait, no worker is occupied, and calls are rare.

    Recovery: from the end of the outage until every prompt that waited has ended.
    """
    seconds = scale.outage_seconds
    with under_load(cluster, f"provider unavailable {seconds:g} s", share_of_slow=0) as run:

        def unfinished(of: set[object] | None = None) -> set[object]:
            ids = {row[0] for row in run.recorder.unfinished([user.id for user in run.users])}
            return ids if of is None else ids & of

        for _ in range(scale.outages):
            run.expect(lambda: bool(run.recorder.claimed()), 30, "work in flight")
            claimed: list[int] = []
            Commanded.absence.touch()
            started = time.monotonic()
            while time.monotonic() - started < seconds:
                run.pause(0.1)
                claimed.append(len(run.recorder.claimed()))
            waiting = unfinished()
            calls = Commanded.absence.stat().st_size
            Commanded.absence.unlink()
            available_again = time.monotonic()
            run.outcome.faults += 1
            processes = WORKER_CHILDREN * len(cluster.workers)
            max_calls = processes * (_MAX_CALLS + seconds / 30)
            run.outcome.require(
                calls <= max_calls, f"the provider was called {calls} times, at most {max_calls:g} are allowed"
            )
            run.outcome.require(statistics.median(claimed) == 0, f"prompts were claimed during the outage: {claimed}")
            run.expect(lambda waiting=waiting: not unfinished(waiting), 120, "the end of the waiting prompts")
            run.outcome.recoveries.append(time.monotonic() - available_again)
            run.outcome.notes = (
                f"{len(waiting)} prompts waited, {calls} calls during the outage, by {processes} processes"
            )
    run.outcome.bound(run.outcome.slowest_recovery, 60, "answering the waiting prompts")
    return run.outcome
