"""Time slices on the event loop, in a process of its own: gevent changes the standard library for good."""

import subprocess
import sys

from tests.support.servers import MAX_WAIT_SECONDS, ROOT

_PRELUDE = """
from gevent import monkey
monkey.patch_all()
import socket, time, gevent
from api.server.time_slice import TIME_SLICE_SECONDS, TimeSlice

def work_for_a_time_slice():
    until = time.monotonic() + TIME_SLICE_SECONDS
    while time.monotonic() < until:
        pass
"""


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", _PRELUDE + code], check=True, timeout=MAX_WAIT_SECONDS, cwd=ROOT)


def test_a_greenlet_that_never_waits_lets_others_use_the_network_after_each_time_slice() -> None:
    run("""
time_slices = 0

def never_wait():
    global time_slices
    time_slice = TimeSlice()
    while True:
        work_for_a_time_slice()
        time_slices += 1
        time_slice.yield_if_over()

ours, theirs = socket.socketpair()
echo = gevent.spawn(lambda: [theirs.sendall(theirs.recv(1)) for _ in range(20)])
busy = gevent.spawn(never_wait)
for _ in range(20):
    ours.sendall(b"x")
    assert ours.recv(1) == b"x"
busy.kill()
assert time_slices < 20 * 10, time_slices
""")


def test_announcements_get_as_much_of_a_busy_event_loop_as_all_requests() -> None:
    run("""
from itertools import count
from unittest.mock import Mock
from api.realtime.relay import Relay
from api.server.time_slice import _wait_for_next_iteration
from shared.messaging.announcements import Announcement

handled, announced = 0, 0

def handle_requests():
    global handled
    while handled < 400:
        work_for_a_time_slice()
        handled += 1
        _wait_for_next_iteration()

class Subscriber:
    def put(self, announcement):
        global announced
        work_for_a_time_slice()
        announced += 1

relay = Relay(Mock(), Mock(), Mock(), check_seconds=60)
relay.enter(1, Subscriber())
announcing = gevent.spawn(lambda: [relay._dispatch(1, Announcement(seq)) for seq in count(1)])
gevent.joinall([gevent.spawn(handle_requests) for _ in range(10)])
announcing.kill()
assert 400 / 3 < announced < 400 * 2, announced
""")


def test_an_announcement_to_a_large_room_lets_others_run_and_is_not_overtaken() -> None:
    run("""
from unittest.mock import Mock
from api.realtime.relay import Relay
from shared.messaging.announcements import Announcement

received, waited = [], []

class Subscriber:
    def put(self, announcement):
        work_for_a_time_slice()
        received.append((announcement.seq, len(waited)))

relay = Relay(Mock(), Mock(), Mock(), check_seconds=60)
for _ in range(50):
    relay.enter(1, Subscriber())
other = gevent.spawn(lambda: [(gevent.sleep(0.001), waited.append(1)) for _ in range(10)])
both = [gevent.spawn(relay._dispatch, 1, Announcement(seq)) for seq in (1, 2)]
gevent.joinall([*both, other])
assert [seq for seq, _ in received] == [1] * 50 + [2] * 50
assert received[49][1] == 10, received
""")


def test_many_new_connections_let_others_use_the_network_between_them() -> None:
    run("""
from api.server.listening_socket import DrainingServer

served = 0

def handle(connection, address):
    global served
    work_for_a_time_slice()
    served += 1

listening = socket.socket()
listening.bind(("127.0.0.1", 0))
listening.listen(200)
clients = [socket.create_connection(listening.getsockname()) for _ in range(200)]
ours, theirs = socket.socketpair()
echo = gevent.spawn(lambda: [theirs.sendall(theirs.recv(1)) for _ in range(20)])
DrainingServer(listening, handle).start()
for _ in range(20):
    ours.sendall(b"x")
    assert ours.recv(1) == b"x"
assert 0 < served < 150, served
""")
