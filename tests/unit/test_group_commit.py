"""Group commit: what gathers while a group is at work goes together next, and each caller gets their own outcome."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from api.intake import group_commit
from api.intake.group_commit import GroupCommit
from shared.errors import OverloadedError
from tests.support.servers import wait_until


class Work:
    """Notes the groups that it gets. It holds each up until it is let go."""

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

    def let_go(self, groups: int = 1) -> None:
        self._gate.release(groups)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(max_workers=64) as made:
        yield made


def submit_while_busy(pool, commit: GroupCommit, work: Work, items: Sequence[int]) -> tuple[Future, list[Future]]:
    """One that is at work, and these that wait behind it, in order."""
    first = pool.submit(commit, 0)
    wait_until(lambda: work.groups == [[0]])
    others = []
    for item in items:
        others.append(pool.submit(commit, item))
        wait_until(lambda: len(commit._waiting) == len(others))
    return first, others


def test_whoever_is_alone_waits_for_nobody() -> None:
    work = Work(held=False)
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    assert [commit(item) for item in (1, 2, 3)] == [10, 20, 30]
    assert work.groups == [[1], [2], [3]]


def test_those_who_come_meanwhile_go_together_in_order(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    first, others = submit_while_busy(pool, commit, work, [1, 2, 3])
    work.let_go(2)
    assert [future.result(10) for future in (first, *others)] == [0, 10, 20, 30]
    assert work.groups == [[0], [1, 2, 3]]


def test_the_first_does_not_wait_for_those_after_it(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    first, (second,) = submit_while_busy(pool, commit, work, [1])
    work.let_go()
    assert first.result(10) == 0
    assert not second.done()
    work.let_go()
    assert second.result(10) == 10


def test_a_group_has_a_largest_size(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=2, max_waiting=10)
    _, others = submit_while_busy(pool, commit, work, [1, 2, 3, 4, 5])
    work.let_go(4)
    assert [future.result(10) for future in others] == [10, 20, 30, 40, 50]
    assert work.groups == [[0], [1, 2], [3, 4], [5]]


def test_each_gets_their_own_error(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    _, (good, bad, other) = submit_while_busy(pool, commit, work, [1, -2, 3])
    work.let_go(2)
    assert (good.result(10), other.result(10)) == (10, 30)
    with pytest.raises(ValueError, match="-2"):
        bad.result(10)


def test_what_the_work_raises_everybody_gets_and_the_next_go_on(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=10)
    _, others = submit_while_busy(pool, commit, work, [1, 13])
    work.let_go(2)
    for future in others:
        with pytest.raises(RuntimeError, match="the whole group"):
            future.result(10)
    work.let_go()
    assert commit(4) == 40


def test_more_than_may_wait_are_refused_at_once(pool) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=10, max_waiting=2)
    first, others = submit_while_busy(pool, commit, work, [1, 2])
    with pytest.raises(OverloadedError):
        commit(3)
    work.let_go(2)
    assert [future.result(10) for future in (first, *others)] == [0, 10, 20]
    work.let_go()
    assert commit(4) == 40


def test_many_at_once_are_each_done_once() -> None:
    work = Work(held=False)
    commit = GroupCommit(work, max_size=7, max_waiting=1_000)
    with ThreadPoolExecutor(max_workers=16) as pool:
        assert list(pool.map(commit, range(14, 500))) == [item * 10 for item in range(14, 500)]
    assert sorted(item for group in work.groups for item in group) == list(range(14, 500))
    assert max(map(len, work.groups)) <= 7


class Deadly:
    """The lock of a place: whoever waits for it is killed, at once or when it is their turn."""

    def __init__(self, *, at_its_turn: bool) -> None:
        self._lock = threading.Lock()
        self._strikes = threading.Event()
        if not at_its_turn:
            self._strikes.set()

    def acquire(self, blocking: bool = True) -> bool:
        if not blocking or not self._lock.locked():  # the place's own, when it is made
            return self._lock.acquire(blocking=False)
        assert self._strikes.wait(10)
        raise SystemExit

    def release(self) -> None:
        self._lock.release()
        self._strikes.set()


@pytest.mark.parametrize("at_its_turn", [False, True])
def test_whoever_is_killed_while_waiting_holds_nobody_up(
    pool, monkeypatch: pytest.MonkeyPatch, at_its_turn: bool
) -> None:
    work = Work()
    commit = GroupCommit(work, max_size=1, max_waiting=10)
    first = pool.submit(commit, 0)
    wait_until(lambda: work.groups == [[0]])
    make_place = group_commit._Place

    def deadly_for_one(item: int):
        place = make_place(item)
        if item == 1:
            place.turn = Deadly(at_its_turn=at_its_turn)
            place.turn.acquire()
        return place

    monkeypatch.setattr(group_commit, "_Place", deadly_for_one)
    victim = pool.submit(commit, 1)
    wait_until(lambda: victim.done() if not at_its_turn else len(commit._waiting) == 1)
    other = pool.submit(commit, 2)
    wait_until(lambda: len(commit._waiting) == 1 + at_its_turn)
    work.let_go(2)
    assert (first.result(10), other.result(10)) == (0, 20)
    with pytest.raises(SystemExit):
        victim.result(10)
    assert work.groups == [[0], [2]]
    work.let_go()
    assert commit(3) == 30
