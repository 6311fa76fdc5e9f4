"""Group commit: items that arrive while a group is processed form the next group; each caller gets its own outcome."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from api.intake import group_commit
from api.intake.group_commit import GroupCommit
from shared.errors import OverloadedError
from tests.support.servers import wait_until


class Work:
    """Record the groups that it receives, and block each one until it is released."""

    def __init__(self, *, held: bool = True) -> None:
        self.groups: list[list[int]] = []
        self._gate = threading.Semaphore(0)
        self._held = held

    def __call__(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.groups.append(list(items))
        if self._held:
            assert self._gate.acquire(timeout=10)
        if 13 in items and len(items) > 1:
            raise RuntimeError("the whole group")
        return [ValueError(item) if item < 0 else item * 10 for item in items]

    def release(self, groups: int = 1) -> None:
        self._gate.release(groups)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(max_workers=64) as made:
        yield made


def submit_while_busy(pool, commit: GroupCommit, work: Work, items: Sequence[int]) -> tuple[Future, list[Future]]:
    """Submit one item that blocks, and then these, which wait behind it in order."""
    first = pool.submit(commit, 0)
    wait_until(lambda: work.groups == [[0]])
    others = []
    for item in items:
        others.append(pool.submit(commit, item))
        wait_until(lambda: len(commit._waiting) == len(others))
    return first, others


def test_a_single_caller_does_not_wait() -> None:
    work = Work(held=False)
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    assert [commit(item) for item in (1, 2, 3)] == [10, 20, 30]
    assert work.groups == [[1], [2], [3]]


def test_items_that_arrive_during_a_group_form_the_next_group_in_order(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    first, others = submit_while_busy(pool, commit, work, [1, 2, 3])
    work.release(2)
    assert [future.result(10) for future in (first, *others)] == [0, 10, 20, 30]
    assert work.groups == [[0], [1, 2, 3]]


def test_a_caller_does_not_wait_for_later_groups(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    first, (second,) = submit_while_busy(pool, commit, work, [1])
    work.release()
    assert first.result(10) == 0
    assert not second.done()
    work.release()
    assert second.result(10) == 10


def test_a_group_has_a_maximum_size(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=2, max_waiting=10)
    _, others = submit_while_busy(pool, commit, work, [1, 2, 3, 4, 5])
    work.release(4)
    assert [future.result(10) for future in others] == [10, 20, 30, 40, 50]
    assert work.groups == [[0], [1, 2], [3, 4], [5]]


def test_each_caller_gets_its_own_error(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    _, (good, bad, other) = submit_while_busy(pool, commit, work, [1, -2, 3])
    work.release(2)
    assert (good.result(10), other.result(10)) == (10, 30)
    with pytest.raises(ValueError, match="-2"):
        bad.result(10)


def test_an_exception_of_the_whole_group_reaches_each_of_its_callers_and_no_later_one(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    _, others = submit_while_busy(pool, commit, work, [1, 13])
    work.release(2)
    for future in others:
        with pytest.raises(RuntimeError, match="the whole group"):
            future.result(10)
    work.release()
    assert commit(4) == 40


def test_callers_beyond_the_maximum_are_rejected_immediately(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=2)
    first, others = submit_while_busy(pool, commit, work, [1, 2])
    with pytest.raises(OverloadedError):
        commit(3)
    work.release(2)
    assert [future.result(10) for future in (first, *others)] == [0, 10, 20]
    work.release()
    assert commit(4) == 40


def test_once_the_first_of_a_whole_group_has_waited_too_long_others_are_rejected(
    pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr(group_commit, "time", clock)
    work = Work()
    commit = GroupCommit(work, max_size=2, max_waiting=10, max_wait=1.0)
    first, others = submit_while_busy(pool, commit, work, [1])
    clock.now = 1.0
    assert not commit.is_full  # the next group has room
    others.append(pool.submit(commit, 2))
    wait_until(lambda: len(commit._waiting) == 2)
    clock.now = 0.9
    assert not commit.is_full
    clock.now = 1.0
    assert commit.is_full
    with pytest.raises(OverloadedError):
        commit(3)
    work.release(2)
    assert [future.result(10) for future in (first, *others)] == [0, 10, 20]
    assert not commit.is_full


def test_each_item_of_many_concurrent_callers_is_processed_once() -> None:
    work = Work(held=False)
    commit = GroupCommit(work, max_size=7, max_waiting=1_000)
    with ThreadPoolExecutor(max_workers=16) as pool:
        assert list(pool.map(commit, range(14, 500))) == [item * 10 for item in range(14, 500)]
    assert sorted(item for group in work.groups for item in group) == list(range(14, 500))
    assert max(map(len, work.groups)) <= 7


class KillingLock:
    """The lock of a place. Its waiting thread is killed, immediately or at its turn."""

    def __init__(self, *, at_its_turn: bool) -> None:
        self._lock = threading.Lock()
        self._strikes = threading.Event()
        if not at_its_turn:
            self._strikes.set()

    def acquire(self, blocking: bool = True) -> bool:
        if not blocking or not self._lock.locked():  # the place acquires its own lock when it is created
            return self._lock.acquire(blocking=False)
        assert self._strikes.wait(10)
        raise SystemExit

    def release(self) -> None:
        self._lock.release()
        self._strikes.set()


@pytest.mark.parametrize("at_its_turn", [False, True])
def test_a_caller_killed_while_waiting_does_not_block_the_others(
    pool, monkeypatch: pytest.MonkeyPatch, at_its_turn: bool
) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=1, max_waiting=10)
    first = pool.submit(commit, 0)
    wait_until(lambda: work.groups == [[0]])
    make_place = group_commit._Waiter

    def make_place_of_victim(item: int):
        place = make_place(item)
        if item == 1:
            place.wake_up = KillingLock(at_its_turn=at_its_turn)
            place.wake_up.acquire()
        return place

    monkeypatch.setattr(group_commit, "_Waiter", make_place_of_victim)
    victim = pool.submit(commit, 1)
    wait_until(lambda: victim.done() if not at_its_turn else len(commit._waiting) == 1)
    other = pool.submit(commit, 2)
    wait_until(lambda: len(commit._waiting) == 1 + at_its_turn)
    work.release(2)
    assert (first.result(10), other.result(10)) == (0, 20)
    with pytest.raises(SystemExit):
        victim.result(10)
    assert work.groups == [[0], [2]]
    work.release()
    assert commit(3) == 30


class Clock:
    """Stands in for `time`: less and less time passes between two readings, and `on_sleep` is called to sleep."""

    def __init__(self, on_sleep: Callable[[float], None]) -> None:
        self._left = 1.0
        self.sleep = on_sleep

    def monotonic(self) -> float:
        self._left /= 2
        return 1 - self._left


def test_a_group_that_was_waited_for_is_followed_by_a_pause_in_which_the_next_gathers(
    pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, late = Work(), []
    commit = GroupCommit(work, max_size=10, max_waiting=10, max_pause=100.0)

    def gather(_: float) -> None:
        late.append(pool.submit(commit, 2))
        wait_until(lambda: len(commit._waiting) == 2)

    monkeypatch.setattr(group_commit, "time", Clock(gather))
    _, (second,) = submit_while_busy(pool, commit, work, [1])
    work.release(2)
    assert (second.result(10), late[0].result(10)) == (10, 20)
    assert work.groups == [[0], [1, 2]]


@pytest.mark.parametrize("waiting", [[], [1, 2]])
def test_neither_a_caller_who_finds_nobody_nor_a_full_group_pauses(
    pool, monkeypatch: pytest.MonkeyPatch, waiting: list[int]
) -> None:
    work, pauses = Work(), []
    commit = GroupCommit(work, max_size=2, max_waiting=10, max_pause=100.0)
    monkeypatch.setattr(group_commit, "time", Clock(pauses.append))
    first, others = submit_while_busy(pool, commit, work, waiting)
    work.release(2)
    for future in (first, *others):
        future.result(10)
    work.release()
    assert commit(3) == 30
    assert pauses == []


def test_a_leader_killed_in_its_pause_does_not_block_the_others(pool, monkeypatch: pytest.MonkeyPatch) -> None:
    work, kills = Work(), [SystemExit]

    def kill_once(_: float) -> None:
        if kills:
            raise kills.pop()

    commit = GroupCommit(work, max_size=10, max_waiting=10, max_pause=100.0)
    monkeypatch.setattr(group_commit, "time", Clock(kill_once))
    first, (victim, other) = submit_while_busy(pool, commit, work, [1, 2])
    work.release(2)
    assert (first.result(10), other.result(10)) == (0, 20)
    with pytest.raises(SystemExit):
        victim.result(10)
    assert work.groups == [[0], [2]]
