"""Derived data is damaged and lost, and can be rebuilt: stored segments, and the indexes in memory."""

import time

from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import under_load
from tests.faults.scale import Scale


def damaged_segments(cluster: Cluster, scale: Scale) -> Outcome:
    """Flip a bit of stored segments, truncate or delete them, and kill an API process with its indexes in memory.

    Recovery: from the first search in the new process until workers have replaced every damaged segment. During and
    after that, searches must find the same as an exact search without an index.
    """
    with under_load(cluster, "segments damaged", users=2, window=20, pause=0, share_of_slow=0) as run:
        owners = run.users[:2]
        run.expect(lambda: all(run.recorder.segments(user.id) for user in owners), 600, "segments")
        for i in range(scale.damages):
            damaged = {user.id: run.recorder.damage_segments(user.id, i) for user in owners}
            run.outcome.faults += len(damaged)
            cluster.apis[i % 2].kill()
            cluster.apis[i % 2].start()
            started = time.monotonic()
            for user in owners:
                found = user.search("owls", 20, url=cluster.urls[i % 2])
                run.outcome.require(len(found) == 20, f"a search found {len(found)}")
            run.expect(
                lambda damaged=damaged: not any(ids & run.recorder.segments(user) for user, ids in damaged.items()),
                60,
                "the replacement of the damaged segments",
            )
            run.outcome.recoveries.append(time.monotonic() - started)
    return run.outcome
