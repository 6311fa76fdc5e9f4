"""The pools of native threads, under gevent: in a process of its own, which gevent patches."""

import subprocess
import sys

from tests.support.servers import MAX_WAIT_SECONDS, ROOT

PROGRAM = """
from gevent import monkey
monkey.patch_all()
import gevent
from api.server.threadpool import NativeThreads, offload

searches, lock = NativeThreads(2), monkey.get_original("_thread", "allocate_lock")()
lock.acquire()

def search():  # waits in its native thread, as a computation would
    with lock:
        return 1

waiting = [gevent.spawn(searches.offload, search) for _ in range(20)]
gevent.sleep(0)
print(offload(sum, [1, 2]), "while", sum(not each.ready() for each in waiting), "searches wait")
lock.release()
gevent.joinall(waiting)
print(sum(each.successful() for each in waiting), "searches ended")
"""


def test_a_password_is_verified_while_all_threads_of_searches_are_busy() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=True
    )
    assert run.stdout.splitlines() == ["3 while 20 searches wait", "20 searches ended"]
