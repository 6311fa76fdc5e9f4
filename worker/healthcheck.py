"""A container's health check, `python -m worker.healthcheck`: exits with 0 if the worker in the same container works.

It reads the age of the file that the worker's main loop touches, which takes 20 ms; `celery inspect ping` would load a
second worker every half minute to ask the first. The loop stands still while the broker is unavailable or
accepts no writes. A restarted worker would stand still, too, so the check passes then.
"""

import os
import sys
import time
from pathlib import Path

STALE_SECONDS = 30


def main() -> int:
    file = os.environ.get("HEARTBEAT_FILE")
    if not file:
        print("HEARTBEAT_FILE is not set: give a file that the worker may write.", file=sys.stderr)  # noqa: T201
        return 1
    return 0 if _is_fresh(Path(file)) or _broker_is_unavailable() else 1


def _is_fresh(file: Path) -> bool:
    try:
        return time.time() - file.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False


def _broker_is_unavailable() -> bool:
    from shared.messaging.redis import make_redis, write_problem  # rarely needed, and slow to load
    from shared.settings import SettingsError, load_settings

    try:
        return write_problem(make_redis(load_settings())) is not None
    except SettingsError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    sys.exit(main())
