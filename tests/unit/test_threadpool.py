"""The pools of native threads, under gevent: in a process of its own, which gevent patches."""

import subprocess
import sys

import pytest

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
try:
    searches.offload(int, "a word")
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def run() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=MAX_WAIT_SECONDS, check=True
    )


def test_a_password_is_verified_while_all_threads_of_searches_are_busy(run: subprocess.CompletedProcess[str]) -> None:
    assert run.stdout.splitlines()[:2] == ["3 while 20 searches wait", "20 searches ended"]


def test_an_exception_is_raised_and_not_printed(run: subprocess.CompletedProcess[str]) -> None:
    assert run.stdout.splitlines()[2:] == ["invalid literal for int() with base 10: 'a word'"]
    assert run.stderr == ""
