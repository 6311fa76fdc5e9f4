"""What is derived, and can be made again, is damaged and lost: stored segments, and the indexes in memory."""

import time

from tests.faults.cluster import Cluster
from tests.faults.outcome import Outcome
from tests.faults.run import under_load
from tests.faults.scale import Scale


def damaged_segments(cluster: Cluster, scale: Scale) -> Outcome:
    """Stored segments get a flipped bit, are cut short, or are gone, and an API process loses what it had in memory.

    Recovery: from the first search in the new process until workers have replaced every damaged segment. What searches
    find meanwhile, and in the end, must be what they find without any index.
    """
    with under_load(cluster, "segments damaged", members=2, window=20, pause=0, share_of_slow=0) as run:
        owners = run.members[:2]
        run.expect(lambda: all(run.witness.segments(member.id) for member in owners), 120, "segments")
        for i in range(scale.damages):
            damaged = {member.id: run.witness.damage_segments(member.id, i) for member in owners}
            run.outcome.faults += len(damaged)
            cluster.apis[i % 2].kill()
            cluster.apis[i % 2].start()
            begun = time.monotonic()
            for member in owners:
                found = member.search("owls", 20, url=cluster.urls[i % 2])
                run.outcome.require(len(found) == 20, f"a search found {len(found)}")
            run.expect(
                lambda damaged=damaged: not any(ids & run.witness.segments(user) for user, ids in damaged.items()),
                60,
                "other segments in place of the damaged ones",
            )
            run.outcome.recoveries.append(time.monotonic() - begun)
    return run.outcome
