"""One scenario under way: its users, its faults and their recoveries; and the count at its end."""

import contextlib
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from shared.messaging.queue import PROCESS_PROMPTS, make_celery
from tests.faults.cluster import Cluster
from tests.faults.event_recorder import Witness, differ
from tests.faults.load import Call, Heard, Member, questions
from tests.faults.outcome import Outcome
from tests.support.client import PASSWORD

_POLL_SECONDS = 0.05
_SEARCHES = 3  # of each user on each API host, of each kind
_BETWEEN_BROWSING_SECONDS = 0.1
#: What a request may be answered while things die: besides these, only that it cannot be served now.
_EXPECTED = {"200", "201", "202", "204", "409", "503"}
_CONNECTION_FAILURES = ("refused", "closed", "broken", "timeout")


@dataclass
class _Interrupted:
    """A fault, and the attempts that were under way at it and have not gone on since."""

    begun: float
    held: dict[int, int]
    is_handed_out: bool = False


class Run:
    """A stack under load."""

    def __init__(self, cluster: Cluster, witness: Witness, name: str, members: list[Member], calls: list[Call]) -> None:
        self.cluster = cluster
        self.witness = witness
        self.members = members
        self.calls = calls
        self.outcome = Outcome(name)
        #: From each kill until nothing waits for the lease of a dead worker any more.
        self.handed_out: list[float] = []
        #: Worker hosts that ended by themselves.
        self.exits: list[str] = []
        self.may_exit = False
        #: When a server was away, if that is what the scenario does: its requests are those that count.
        self.away: list[tuple[float, float]] = []
        self._interrupted: list[_Interrupted] = []

    def wait(self, condition: Callable[[], bool], seconds: float) -> float | None:
        """Polls, while recoveries are noted. Returns how long it took, or None if it did not come in time."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > seconds:
                return None
            self.note_recoveries()
            self._restart_what_exited()
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - begun

    def pause(self, seconds: float) -> None:
        """Lets the load go on, while recoveries are noted."""
        self.wait(lambda: False, seconds)

    def expect(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits for what must come; a breach if it does not."""
        self.outcome.require(self.wait(condition, seconds) is not None, f"{what} did not come within {seconds:g} s")

    def interrupted(self) -> None:
        """To be called right after a fault: whatever is held then must end, or be taken by another worker."""
        self.outcome.faults += 1
        self._interrupted.append(_Interrupted(time.monotonic(), self.witness.held()))

    def note_recoveries(self) -> None:
        for fault in self._interrupted:
            since = self.witness.since_held(fault.held)
            taken = time.monotonic() - fault.begun
            if not fault.is_handed_out and since.keys() == fault.held.keys():
                fault.is_handed_out = True
                self.handed_out.append(taken)
            fault.held = {i: attempt for i, attempt in fault.held.items() if not since.get(i)}
            if not fault.held:
                self.outcome.recoveries.append(taken)
        self._interrupted = [fault for fault in self._interrupted if fault.held]

    def _restart_what_exited(self) -> None:
        """What the hosts' supervisor does."""
        for worker in self.cluster.workers:
            if not worker.is_running:
                self.exits.append(worker.name)
                worker.bootstrap()

    def consuming_again(self) -> None:
        """To be called when a fault is over: notes how long until a prompt submitted from now on is answered."""
        begun, since = time.monotonic(), self.witness.now()
        self.expect(lambda: self.witness.is_consuming(since), 120, "a completion after the fault")
        self.outcome.recoveries.append(time.monotonic() - begun)

    def settle(self) -> None:
        """Waits for everything to end and to be heard of; then counts. Ends the load."""
        self._expect_every_worker_to_consume()
        self.outcome.require(self.may_exit or not self.exits, f"worker hosts exited: {self.exits}")
        for member in self.members:
            member.enough()
            self.outcome.breaches += [f"{member.username}: {error!r}" for error in member.errors]
        ids = [member.id for member in self.members]
        self.expect(lambda: not self.witness.unfinished(ids), 120, "the end of every prompt")
        self.outcome.require(not (left := self.witness.unfinished(ids)), f"unfinished: {left[:5]}")
        self.expect(lambda: not self._interrupted, 10, "the recovery from every fault")
        feeds = {member.id: self.witness.feed(member.id) for member in self.members}
        self.wait(lambda: all(member.seq >= len(feeds[member.id]) for member in self.members), 30)
        # What is told twice may come late: with the relays' next look at the feed.
        self.pause(2 * self.cluster.settings.feed_check_seconds)
        self._count(feeds)

    def _expect_every_worker_to_consume(self) -> None:
        """A host that lives and takes nothing would not be missed while another does."""
        celery = make_celery(self.cluster.settings)
        begun = _tasks_done(celery)
        hosts = {f"{worker.name}@test" for worker in self.cluster.workers}

        def has_each() -> bool:
            done = _tasks_done(celery)
            return all(done.get(host, -1) > begun.get(host, -1) for host in hosts)

        self.expect(has_each, 30, "every worker host taking prompts")
        celery.close()

    def _count(self, feeds: dict[int, list[Heard]]) -> None:
        outcome = self.outcome
        outcome.answers = dict(sorted(Counter(str(call.answer) for call in self.calls).items()))
        for answer in outcome.answers:
            expected = answer in _EXPECTED or answer.startswith(_CONNECTION_FAILURES)
            outcome.require(expected, f"a request was answered {answer}")
        outcome.p99_seconds = p99_by_kind([call for call in self.calls if self._counts(call)])
        endings = self.witness.endings(feeds)
        outcome.twice += sum(times - 1 for times in endings.values())
        for member in self.members:
            self._count_member(member, feeds[member.id])
        outcome.differing = self._differing_searches()

    def _counts(self, call: Call) -> bool:
        return not self.away or any(begun <= call.begun < ended for begun, ended in self.away)

    def _count_member(self, member: Member, feed: list[Heard]) -> None:
        outcome, statuses = self.outcome, self.witness.statuses(member.id)
        ended = Counter(statuses.values())
        outcome.accepted += len(member.accepted)
        outcome.completed += ended["completed"]
        outcome.cancelled += ended["cancelled"]
        outcome.failed += ended["failed"]
        failed = {i for i, status in statuses.items() if status == "failed"}
        outcome.failed_needlessly += len(failed - member.meant_to_fail)
        outcome.require(member.meant_to_fail <= failed, "what must fail did not")
        outcome.lost += sum(statuses.get(i) in (None, "queued", "processing") for i in member.accepted)
        outcome.twice += len(set(statuses) - set(member.accepted))
        outcome.revived += sum(statuses[i] != "cancelled" for i in member.cancelled)
        told = {(heard.prompt_id, heard.change) for heard in feed}
        outcome.require(told == set(statuses.items()), "the feed does not tell what the table holds")
        outcome.require([heard.seq for heard in feed] == list(range(1, len(feed) + 1)), "the feed has gaps")
        outcome.missed += len(set(feed) - set(member.heard))
        outcome.repeated += len(set(member.heard) - set(feed))
        outcome.repeated += sum(b.seq <= a.seq for a, b in pairwise(member.heard))

    def _differing_searches(self) -> int:
        found = 0
        for member in self.members:
            rebuilt = self.witness.rebuilt(member.id)
            for text in [*questions(count=_SEARCHES), *self.witness.retried(member.id, _SEARCHES)]:
                expected = rebuilt(text, 20)
                for url in self.cluster.urls:
                    found += differ(member.search(text, 20, url=url), expected)
        return found


@contextlib.contextmanager
def under_load(
    cluster: Cluster,
    name: str,
    *,
    members: int = 6,
    window: int = 5,
    pause: float = 0.05,
    prompts: int | None = None,
    share_of_slow: float = 0.1,
) -> Iterator[Run]:
    """A run whose users submit until the block ends (or `prompts` of them), then settles and counts.

    Each user waits `pause` seconds between submissions, and is never more than `window` ahead of the answers.
    """
    begun = time.monotonic()
    calls: list[Call] = []
    joined = [Member(cluster.urls, calls, window=window, pause=pause) for _ in range(members)]
    browser = Member(cluster.urls, calls, window=window, pause=0)
    calls.clear()  # what it took to make them is not of interest
    run = Run(cluster, Witness(cluster.settings), name, [*joined, browser], calls)
    try:
        browser.in_background(lambda: _browse(browser))
        for i, member in enumerate(joined):
            share = None if prompts is None else prompts // members + (i < prompts % members)
            member.begin(questions(share_of_slow, share))
        yield run
        run.settle()
        run.outcome.seconds = time.monotonic() - begun
    finally:
        for member in run.members:
            member.leave()


def _browse(member: Member) -> None:
    """A user who does a bit of everything."""
    credentials = {"username": member.username, "password": PASSWORD}
    while not member.has_enough:
        prompt_id = member.submit(next(questions(0)))
        member.call("show", "GET", f"/prompts/{prompt_id}/")
        member.call("list", "GET", "/prompts/")
        member.call("search", "GET", "/prompts/similar/", params={"prompt": random.choice(("owls", "bread"))})
        login = member.call("login", "POST", "/login/", json=credentials)
        if login is not None and login.status_code == 200:
            pair = member.call("refresh", "POST", "/auth/refresh/", json={"refresh": login.json()["refresh"]})
            if pair is not None and pair.status_code == 200:
                member.call("logout", "POST", "/auth/logout/", json={"refresh": pair.json()["refresh"]})
        member.call("ready", "GET", "/readyz")
        time.sleep(_BETWEEN_BROWSING_SECONDS)


def _tasks_done(celery) -> dict[str, int]:
    """How many tasks each worker host has taken since it started."""
    with celery.connection_for_write() as connection:  # pooled ones may be from before a fault
        stats = celery.control.inspect(timeout=1, connection=connection).stats() or {}
    return {host: told["total"].get(PROCESS_PROMPTS, 0) for host, told in stats.items()}


def p99_by_kind(calls: list[Call]) -> dict[str, float]:
    """The 99th percentile of how long each kind of request took, in seconds."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        by_kind[call.kind].append(call.seconds)
    return {
        kind: statistics.quantiles(taken, n=100, method="inclusive")[98]
        for kind, taken in by_kind.items()
        if len(taken) > 1
    }
