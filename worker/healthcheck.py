"""`python -m worker.healthcheck`: ends with 0 if the worker beside it works, as a container's health check.

It looks at the file that the worker's main loop touches, which takes 20 ms; `celery inspect ping` would load a second
worker to ask the first, half a minute after half a minute. The loop stands still while the broker is away, and a new
worker would not do better: so then it is the broker that is to blame.
"""

import os
import sys
import time
from pathlib import Path

STALE_SECONDS = 30


def main() -> int:
    file = os.environ.get("HEARTBEAT_FILE")
    if not file:
        print("HEARTBEAT_FILE is not set, so the worker gives no sign of life.", file=sys.stderr)  # noqa: T201
        return 1
    return 0 if _is_fresh(Path(file)) or _broker_is_away() else 1


def _is_fresh(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _broker_is_away() -> bool:
    from redis import RedisError  # seldom needed, and slow to load

    from shared.messaging.redis import make_redis
    from shared.settings import load_settings

    try:
        make_redis(load_settings()).ping()
    except RedisError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
