"""When a failed delivery is tried again."""

import random
from datetime import timedelta

#: The wait after the first failed attempt, the second, …; a delivery that fails once more has failed for good.
WAITS = (5.0, 60.0, 300.0, 1_800.0, 7_200.0, 21_600.0, 43_200.0, 86_400.0)
MAX_ATTEMPTS = len(WAITS) + 1
#: From the first attempt to the last, without what jitter adds.
WHOLE = timedelta(seconds=sum(WAITS))
#: Deliveries that failed at the same moment are not all tried again at the same moment.
JITTER = 0.1


def wait_seconds(failures: int, retry_after: float | None = None) -> float:
    """How long to wait after this many failures in succession: at least `retry_after` seconds, if the receiver asks."""
    wait = WAITS[min(max(failures, 1), len(WAITS)) - 1]
    return max(wait * random.uniform(1 - JITTER, 1 + JITTER), retry_after or 0.0)  # noqa: S311  # nosec B311
