"""A running scenario: its users, its faults and their recoveries, and the final counts."""

import contextlib
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeVar

import redis

from shared.messaging.queue import ANSWER_PROMPTS, make_celery
from tests.faults.cluster import Cluster
from tests.faults.event_recorder import EventRecorder, differ
from tests.faults.load import Call, LoadUser, PushedEvent, questions
from tests.faults.outcome import Outcome
from tests.support.client import PASSWORD

_POLL_SECONDS = 0.05
_SEARCHES_PER_KIND = 3  # by each user at each API host
_SECONDS_BETWEEN_BROWSING = 0.1
#: The statuses that a request may have during faults.
_EXPECTED = {"200", "201", "202", "204", "409", "503"}
_CONNECTION_FAILURES = ("refused", "closed", "broken", "timeout")


@dataclass
class _Interrupted:
    """A fault, and the attempts that ran when it happened and have not continued since."""

    started: float
    claimed: dict[int, int]
    #: `Run.seconds_without_worker` at that moment.
    without_worker: float
    is_released: bool = False


class Run:
    """A stack under load."""

    def __init__(
        self, cluster: Cluster, recorder: EventRecorder, name: str, users: list[LoadUser], calls: list[Call]
    ) -> None:
        self.cluster = cluster
        self.recorder = recorder
        self.users = users
        self.calls = calls
        self.outcome = Outcome(name)
        #: Seconds from each kill until no prompt waits for the lease of a dead worker, without those in which no worker
        #: host was ready: then nobody can release it.
        self.released_after: list[float] = []
        self.seconds_without_worker = 0.0
        #: Worker hosts that exited by themselves.
        self.exits: list[str] = []
        self.may_exit = False
        #: The statuses that a request may have.
        self.expected = set(_EXPECTED)
        #: Start and end of each server outage, if the scenario has any. Then only requests within them count for p99.
        self.outages: list[tuple[float, float]] = []
        self._interrupted: list[_Interrupted] = []
        self._looked = time.monotonic()

    def wait(self, condition: Callable[[], bool], seconds: float) -> float | None:
        """Poll a condition, and record recoveries. Return how long it took, or None after `seconds`."""
        started = time.monotonic()
        while not condition():
            if time.monotonic() - started > seconds:
                return None
            self.note_recoveries()
            self._restart_what_exited()
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - started

    def pause(self, seconds: float) -> None:
        """Let the load run, and record recoveries."""
        self.wait(lambda: False, seconds)

    def expect(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for a condition. Record a breach if it does not become true."""
        self.outcome.require(self.wait(condition, seconds) is not None, f"{what} did not come within {seconds:g} s")

    def note_fault(self) -> None:
        """Record a fault. Every prompt claimed at this moment must end, or be claimed by another worker."""
        self.outcome.faults += 1
        self._count_without_worker()
        fault = _Interrupted(time.monotonic(), self.recorder.claimed(), self.seconds_without_worker)
        self._interrupted.append(fault)

    def note_recoveries(self) -> None:
        self._count_without_worker()
        for fault in self._interrupted:
            since = self.recorder.changed_since(fault.claimed)
            taken = time.monotonic() - fault.started
            if not fault.is_released and since.keys() == fault.claimed.keys():
                fault.is_released = True
                self.released_after.append(taken - (self.seconds_without_worker - fault.without_worker))
            fault.claimed = {i: attempt for i, attempt in fault.claimed.items() if not since.get(i)}
            if not fault.claimed:
                self.outcome.recoveries.append(taken)
        self._interrupted = [fault for fault in self._interrupted if fault.claimed]

    def _count_without_worker(self) -> None:
        """Count the time since the last call if no worker host is ready."""
        now = time.monotonic()
        if not self.cluster.has_worker():
            self.seconds_without_worker += now - self._looked
        self._looked = now

    def _restart_what_exited(self) -> None:
        """Restart worker hosts that exited, as a supervisor would do."""
        for worker in self.cluster.workers:
            if not worker.is_running:
                self.exits.append(worker.name)
                worker.start()

    def expect_recovered(self, seconds: float) -> None:
        """Wait until every prompt that was claimed at the faults so far has ended or is claimed again."""
        self.expect(lambda: not self._interrupted, seconds, "the recovery from every fault")

    def expect_consuming(self) -> None:
        """Record how long it takes after a fault until a prompt submitted from now on is completed."""
        started, since = time.monotonic(), self.recorder.now()
        self.expect(lambda: self.recorder.is_consuming(since), 120, "a completion after the fault")
        self.outcome.recoveries.append(time.monotonic() - started)

    def settle(self) -> None:
        """Stop the load, wait until every prompt has ended and every event has arrived, and count."""
        self.expect_every_worker_to_consume()
        self.outcome.require(self.may_exit or not self.exits, f"worker hosts exited: {self.exits}")
        for user in self.users:
            user.finish_submitting()
            self.outcome.breaches += [f"{user.username}: {error!r}" for error in user.errors]
        ids = [user.id for user in self.users]
        self.expect(lambda: not self.recorder.unfinished(ids), 120, "the end of every prompt")
        self.outcome.require(not (left := self.recorder.unfinished(ids)), f"unfinished: {left[:5]}")
        self.expect_recovered(10)
        feeds = {user.id: self.recorder.feed(user.id) for user in self.users}
        self.wait(lambda: all(user.seq >= len(feeds[user.id]) for user in self.users), 30)
        # A repeated event may arrive late, with the relays' next poll of the feed.
        self.pause(2 * self.cluster.settings.feed_check_seconds)
        self._count(feeds)

    def expect_every_worker_to_consume(self) -> None:
        """Expect every worker host to take prompts. Otherwise another host would hide one that takes none."""
        celery = make_celery(self.cluster.settings)
        hosts = {f"{worker.name}@test" for worker in self.cluster.workers}
        started = _tasks_done(celery, len(hosts))

        def has_each() -> bool:
            done = _tasks_done(celery, len(hosts))
            return all(done.get(host, -1) > started.get(host, -1) for host in hosts)

        self.expect(has_each, 30, "a task on every worker host")
        celery.close()

    def _count(self, feeds: dict[int, list[PushedEvent]]) -> None:
        outcome = self.outcome
        outcome.answers = dict(sorted(Counter(str(call.answer) for call in self.calls).items()))
        for answer in outcome.answers:
            expected = answer in self.expected or answer.startswith(_CONNECTION_FAILURES)
            outcome.require(expected, f"a request was answered {answer}")
        outcome.p99_seconds = p99_by_kind([call for call in self.calls if self._is_counted(call)])
        endings = self.recorder.endings(feeds)
        outcome.twice += sum(times - 1 for times in endings.values())
        for user in self.users:
            self._count_user(user, feeds[user.id])
        outcome.differing = self._differing_searches()

    def _is_counted(self, call: Call) -> bool:
        return not self.outages or any(started <= call.started < ended for started, ended in self.outages)

    def _count_user(self, user: LoadUser, feed: list[PushedEvent]) -> None:
        outcome, statuses = self.outcome, self.recorder.statuses(user.id)
        ended = Counter(statuses.values())
        outcome.accepted += len(user.accepted)
        outcome.completed += ended["completed"]
        outcome.cancelled += ended["cancelled"]
        outcome.failed += ended["failed"]
        failed = {i for i, status in statuses.items() if status == "failed"}
        outcome.failed_needlessly += len(failed - user.expected_to_fail)
        outcome.require(user.expected_to_fail <= failed, "a prompt that must fail did not")
        outcome.lost += sum(statuses.get(i) in (None, "queued", "processing") for i in user.accepted)
        outcome.twice += len(set(statuses) - set(user.accepted))
        outcome.revived += sum(statuses[i] != "cancelled" for i in user.cancelled)
        used = self.recorder.used(user.id)
        outcome.require(self.recorder.ledger(user.id) == used, f"the ledger of {user.username} is not {used}")
        in_feed = {(event.prompt_id, event.change) for event in feed}
        outcome.require(in_feed == set(statuses.items()), "the feed differs from the prompts table")
        outcome.require([event.seq for event in feed] == list(range(1, len(feed) + 1)), "the feed has gaps")
        outcome.missed += len(set(feed) - set(user.received))
        outcome.repeated += len(set(user.received) - set(feed))
        outcome.repeated += sum(b.seq <= a.seq for a, b in pairwise(user.received))

    def _differing_searches(self) -> int:
        found = 0
        for user in self.users:
            nearest = self.recorder.exact_search(user.id)
            for text in [*questions(count=_SEARCHES_PER_KIND), *self.recorder.retried(user.id, _SEARCHES_PER_KIND)]:
                expected = nearest(text, 20)
                for url in self.cluster.urls:
                    found += differ(user.search(text, 20, url=url), expected)
        return found


AnyRun = TypeVar("AnyRun", bound=Run)


@contextlib.contextmanager
def under_load(
    cluster: Cluster,
    name: str,
    *,
    users: int = 6,
    window: int = 5,
    pause: float = 0.05,
    prompts: int | None = None,
    share_of_slow: float = 0.1,
    browses: bool = True,
    make_run: Callable[..., AnyRun] = Run,
) -> Iterator[AnyRun]:
    """Run users who submit until the block ends (or `prompts` in total), then settle and count.

    Each user waits `pause` seconds between submissions, and has at most `window` unanswered prompts.
    With `browses`, one more user uses each part of the API.
    """
    started = time.monotonic()
    calls: list[Call] = []
    submitters = [LoadUser(cluster.urls, calls, window=window, pause=pause) for _ in range(users)]
    browsers = [LoadUser(cluster.urls, calls, window=window, pause=0)] if browses else []
    calls.clear()  # the requests that created the users do not count
    run = make_run(cluster, EventRecorder(cluster.settings), name, [*submitters, *browsers], calls)
    try:
        for browser in browsers:
            browser.in_background(partial(_browse, browser))
        for i, user in enumerate(submitters):
            share = None if prompts is None else prompts // users + (i < prompts % users)
            user.start(questions(share_of_slow, share))
        yield run
        run.settle()
        run.outcome.seconds = time.monotonic() - started
    finally:
        for user in run.users:
            user.leave()


def _browse(user: LoadUser) -> None:
    """Use each part of the API in turn."""
    credentials = {"username": user.username, "password": PASSWORD}
    while not user.is_finishing:
        prompt_id = user.submit(next(questions(0)))
        user.call("show", "GET", f"/prompts/{prompt_id}/")
        user.call("list", "GET", "/prompts/")
        user.call("search", "GET", "/prompts/similar/", params={"prompt": random.choice(("owls", "bread"))})
        login = user.call("login", "POST", "/login/", json=credentials)
        if login is not None and login.status_code == 200:
            tokens = user.call("refresh", "POST", "/auth/refresh/", json={"refresh": login.json()["refresh"]})
            if tokens is not None and tokens.status_code == 200:
                user.call("logout", "POST", "/auth/logout/", json={"refresh": tokens.json()["refresh"]})
        user.call("ready", "GET", "/readyz")
        time.sleep(_SECONDS_BETWEEN_BROWSING)


def _tasks_done(celery, hosts: int) -> dict[str, int]:
    """Return how many tasks each worker host has received since it started, as soon as all have said it, or in 1 s."""
    for attempts_left in reversed(range(30)):
        try:
            with celery.connection_for_write() as connection:  # a pooled connection may date from before a fault
                stats = celery.control.inspect(timeout=1, limit=hosts, connection=connection).stats() or {}
            return {host: each["total"].get(ANSWER_PROMPTS, 0) for host, each in stats.items()}
        except redis.TimeoutError:  # on a busy machine Valkey may take longer than the socket's timeout of a second
            if not attempts_left:
                raise
    raise AssertionError


def p99_by_kind(calls: list[Call]) -> dict[str, float]:
    """Return the 99th percentile of the duration of each kind of request, in seconds."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        by_kind[call.kind].append(call.seconds)
    return {
        kind: statistics.quantiles(taken, n=100, method="inclusive")[98]
        for kind, taken in by_kind.items()
        if len(taken) > 1
    }
