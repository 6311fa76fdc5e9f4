"""What answers is away, as behind a network that is cut or an account that is over its limits."""

import statistics
import time

from tests.faults.cluster import CHILDREN, Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import under_load
from tests.faults.scale import Scale
from tests.support.providers import Commanded

#: Pauses double from one second to thirty: so many calls a process at most, and one more for each half a minute.
_CALLS = 6


def absences(cluster: Cluster, scale: Scale) -> Outcome:
    """The provider refuses every call for a while. Prompts wait, no worker is occupied, and it is left alone.

    Recovery: from its return until every prompt of the absence has ended.
    """
    seconds = scale.absence_seconds
    with under_load(cluster, f"provider away {seconds:g} s", share_of_slow=0) as run:

        def unfinished(of: set[object] | None = None) -> set[object]:
            ids = {row[0] for row in run.witness.unfinished([member.id for member in run.members])}
            return ids if of is None else ids & of

        for _ in range(scale.absences):
            run.expect(lambda: bool(run.witness.held()), 30, "work in flight")
            held: list[int] = []
            Commanded.absence.touch()
            begun = time.monotonic()
            while time.monotonic() - begun < seconds:
                run.pause(0.1)
                held.append(len(run.witness.held()))
            waiting = unfinished()
            calls = Commanded.absence.stat().st_size
            Commanded.absence.unlink()
            returned = time.monotonic()
            run.outcome.faults += 1
            processes = CHILDREN * len(cluster.workers)
            most = processes * (_CALLS + seconds / 30)
            run.outcome.require(calls <= most, f"the provider was called {calls} times, not {most:g}")
            run.outcome.require(statistics.median(held) == 0, f"work was held meanwhile: {held}")
            run.expect(lambda waiting=waiting: not unfinished(waiting), 120, "the end of what waited")
            run.outcome.recoveries.append(time.monotonic() - returned)
            run.outcome.notes = f"{len(waiting)} prompts waited, {calls} calls meanwhile, by {processes} processes"
    run.outcome.bound(run.outcome.slowest_recovery, 60, "answering what waited")
    return run.outcome
