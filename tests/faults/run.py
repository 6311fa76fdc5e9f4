"""One scenario under way: its users, its clock, its faults' recoveries; and the count at its end."""

import contextlib
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.cluster import Cluster
from tests.faults.load import Call, Member, questions
from tests.faults.outcome import Outcome
from tests.faults.witness import Witness, differ
from tests.support.client import PASSWORD

_POLL_SECONDS = 0.05
_SEARCHES = 3  # of each user on each API host
_BETWEEN_BROWSING_SECONDS = 0.1


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
        self._interrupted: list[_Interrupted] = []

    def wait(self, condition: Callable[[], bool], seconds: float) -> float | None:
        """Polls, while recoveries are noted. Returns how long it took, or None if it did not come in time."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() - begun > seconds:
                return None
            self.note_recoveries()
            time.sleep(_POLL_SECONDS)
        return time.monotonic() - begun

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

    def consuming_again(self, seconds: float = 120) -> None:
        """To be called when a fault is over: notes how long until a prompt that is submitted from now on ends."""
        since = self.witness.now()
        taken = self.wait(lambda: self.witness.is_consuming(since), seconds)
        self.outcome.recoveries.append(seconds if taken is None else taken)

    def settle(self, seconds: float = 120) -> None:
        """Waits for everything to end and to be heard of; then counts."""
        for member in self.members:
            member.enough()
        ids = [member.id for member in self.members]
        self.wait(lambda: self.witness.unfinished(ids) == 0 and not self._interrupted, seconds)
        feeds = {member.id: self.witness.feed(member.id) for member in self.members}
        newest = {user_id: feed[-1][0] if feed else 0 for user_id, feed in feeds.items()}
        self.wait(lambda: all(member.seq >= newest[member.id] for member in self.members), 30)
        self._count(feeds)

    def _count(self, feeds: dict[int, list[tuple[int, int]]]) -> None:
        outcome = self.outcome
        endings = self.witness.endings(feeds)
        outcome.twice += sum(times - 1 for times in endings.values())
        for member in self.members:
            statuses = self.witness.statuses(member.id)
            ended = Counter(statuses.values())
            outcome.accepted += len(member.accepted)
            outcome.completed += ended["completed"]
            outcome.cancelled += ended["cancelled"]
            outcome.failed += ended["failed"]
            outcome.revived += sum(statuses[i] != "cancelled" for i in member.cancelled)
            outcome.lost += sum(statuses.get(i) in (None, "queued", "processing") for i in member.accepted)
            outcome.twice += len(statuses) - len(set(member.accepted))
            heard, feed = member.heard, set(feeds[member.id])
            outcome.missed += len(feed - set(heard))
            outcome.repeated += len(set(heard) - feed) + sum(b[0] <= a[0] for a, b in pairwise(heard))
        outcome.differing = self._differing_searches()
        outcome.answers = dict(sorted(Counter(str(call.answer) for call in self.calls).items()))
        outcome.p99_seconds = p99_by_kind(self.calls)

    def _differing_searches(self) -> int:
        found = 0
        for member in self.members:
            for text in questions(count=_SEARCHES):
                expected = self.witness.nearest(member.id, text, 20)
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
    browser = Member(cluster.urls, calls, window=1, pause=0)
    calls.clear()  # what it took to make them is not of interest
    run = Run(cluster, Witness(cluster.settings), name, [*joined, browser], calls)
    leave = threading.Event()
    browsing = threading.Thread(target=_browse, args=[browser, leave])
    browsing.start()
    try:
        for i, member in enumerate(joined):
            share = None if prompts is None else prompts // members + (i < prompts % members)
            member.begin(questions(share_of_slow, share))
        yield run
        leave.set()
        browsing.join()
        run.settle()
        run.outcome.seconds = time.monotonic() - begun
    finally:
        leave.set()
        for member in run.members:
            member.leave()


def _browse(member: Member, leave: threading.Event) -> None:
    """A user who does a bit of everything."""
    credentials = {"username": member.username, "password": PASSWORD}
    while not leave.wait(_BETWEEN_BROWSING_SECONDS):
        prompt_id = member.submit(next(questions(0)))
        member.call("show", "GET", f"/prompts/{prompt_id}/")
        member.call("list", "GET", "/prompts/")
        member.call("search", "GET", "/prompts/similar/", params={"prompt": random.choice(("owls", "bread"))})
        member.call("login", "POST", "/login/", json=credentials)
        member.call("ready", "GET", "/readyz")


def p99_by_kind(calls: list[Call]) -> dict[str, float]:
    """The 99th percentile of how long each kind of request took, in seconds."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        by_kind[call.kind].append(call.seconds)
    return {kind: statistics.quantiles(taken, n=100)[98] for kind, taken in by_kind.items() if len(taken) > 1}
