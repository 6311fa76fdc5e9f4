"""How a worker's process exits."""

import os
import subprocess
import sys

from tests.support.servers import ROOT, environment_of, make_settings

# `atexit` calls the function that is registered first at the very end.
_PROGRAM = """
import atexit, gc
atexit.register(lambda: print(gc.get_freeze_count() > 10_000))
import worker.bootstrap
"""


def test_a_worker_exits_without_collecting_garbage() -> None:
    """The interpreter's last collections leave out what is frozen."""
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=os.environ
        | environment_of(make_settings(database_url="postgresql://u:p@127.0.0.1/d", redis_url="redis://127.0.0.1/0")),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "True\n"
