"""Measuring attacks, one after the other, beside the same neighbour."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from tests.faults.neighbours import stack as stacks
from tests.faults.neighbours.attacker import AttackerProcess, Target
from tests.faults.neighbours.attacks import Attack, Period
from tests.faults.neighbours.measurement import Measurement, Polls
from tests.faults.neighbours.neighbour import Neighbour
from tests.faults.neighbours.stack import Memory, Stack
from tests.support import people
from tests.support.people import Person
from tests.support.servers import MAX_WAIT_SECONDS

_ATTACKERS = 21
#: How many of the attack's seconds have passed when the neighbour logs in.
_LOGIN_SHARE = 0.5
_SLOWEST_POLL_SECONDS = 1.0
_P99_SECONDS = 0.2
#: The same for tests, whose machine also runs others.
_SLOWEST_POLL_IN_TESTS_SECONDS = 5.0
_MEMORY_RETURNS_SECONDS = 20


@dataclass(frozen=True)
class Form:
    """The long or the short form: how many seconds the neighbour is measured before and after an attack."""

    is_short: bool
    calm_seconds: float


LONG = Form(is_short=False, calm_seconds=3)
SHORT = Form(is_short=True, calm_seconds=0)


class Neighbourhood:
    """The stack, the neighbour and the attackers' process."""

    def __init__(self, stack: Stack, form: Form) -> None:
        self._stack = stack
        self._form = form
        self._neighbour = Neighbour(stack)
        address = urlsplit(stack.url)
        target = Target(
            address.hostname, address.port, stack.redis_url, self._neighbour.username, self._neighbour.id, ()
        )
        self._attackers = AttackerProcess(target)

    def close(self) -> None:
        self._attackers.close()
        self._neighbour.leave()

    def measure(self, attack: Attack) -> Measurement:
        """Attack, and measure what that costs the neighbour."""
        found = Measurement(attack.title, datetime.now(UTC).date().isoformat())
        users = people.make(self._stack.settings, _ATTACKERS, f"{attack.name}-{time.monotonic_ns()}")
        process_ids = self._stack.process_ids()
        seconds = attack.short_seconds if self._form.is_short else attack.seconds
        self._attackers.prepare(attack.act, users, seconds, self._form.is_short)
        found.memory_before, found.before = self._stack.memory(), self._measure_calm()
        started, started_at = time.monotonic(), datetime.now(UTC)
        self._attackers.begin()
        found.memory_peak = self._watch(seconds)
        findings = self._attackers.findings()
        ended, ended_at = time.monotonic(), datetime.now(UTC)
        self._neighbour.log_in()
        found.during = self._polls(started, ended)
        found.after = self._measure_calm()
        self._expect_answers(found, started, ended)
        self._stack.delete_unfinished([user.id for user in users])
        found.memory_after = self._memory_afterwards(found.memory_before, attack.memory_mib)
        found.lost_processes = len(process_ids - self._stack.process_ids())
        found.notes += findings.notes
        found.breaches += findings.breaches
        if attack.check is not None:
            self._check(attack, found, users, started_at, ended_at)
        self._judge(attack, found, started)
        return found

    def _watch(self, seconds: float) -> Memory:
        """Wait for the end of the attack, and log in meanwhile. Returns the highest memory."""
        first = self._stack.watch_memory(lambda: self._attackers.has_ended, _LOGIN_SHARE * seconds)
        self._neighbour.log_in()
        second = self._stack.watch_memory(lambda: self._attackers.has_ended, MAX_WAIT_SECONDS)
        return Memory(*map(max, first, second))

    def _measure_calm(self) -> Polls | None:
        started = time.monotonic()
        time.sleep(self._form.calm_seconds)
        return self._polls(started, time.monotonic()) if self._form.calm_seconds else None

    def _polls(self, start: float, end: float) -> Polls | None:
        self._neighbour.wait_for_polls(end)
        return Polls.measure(self._neighbour.polls_between(start, end))

    def _expect_answers(self, found: Measurement, started: float, ended: float) -> None:
        """Wait until the neighbour's prompts are answered that were submitted during the attack."""
        deadline = time.monotonic() + MAX_WAIT_SECONDS
        while not self._neighbour.is_answered(ended) and time.monotonic() < deadline:
            time.sleep(0.02)
        found.require(self._neighbour.is_answered(ended), "a prompt of the neighbour was not answered")
        answers = self._neighbour.answers_between(started, ended)
        found.prompts, found.slowest_answer = len(answers), max((each.seconds for each in answers), default=0.0)
        wrong = self._wait_for_events(started, ended)
        found.require(not wrong, f"prompts of the neighbour got other than one event: {wrong}")

    def _wait_for_events(self, started: float, ended: float) -> dict[int, int]:
        """Wait for the neighbour's events. Returns how many came of each prompt that did not get exactly one."""
        # An event that Redis lost comes when the API looks at the feed.
        deadline = time.monotonic() + 2 * self._stack.settings.feed_check_seconds
        while (wrong := self._neighbour.wrong_events(started, ended)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return wrong

    def _memory_afterwards(self, before: Memory, allowed: int) -> Memory:
        """Return the memory as soon as it is about the same as before, or after some seconds."""
        deadline = time.monotonic() + (0 if self._form.is_short else _MEMORY_RETURNS_SECONDS)
        while _growth(before, memory := self._stack.memory()) > allowed and time.monotonic() < deadline:
            time.sleep(0.5)
        return memory

    def _check(
        self, attack: Attack, found: Measurement, users: list[Person], started: datetime, ended: datetime
    ) -> None:
        notes, breaches = attack.check(Period(self._stack, users, started, ended, self._form.is_short))
        found.notes += notes
        found.breaches += breaches

    def _judge(self, attack: Attack, found: Measurement, started: float) -> None:
        """Compare with what is promised."""
        refused = self._neighbour.refused_between(started, time.monotonic())
        found.require(not refused, f"requests of the neighbour failed: {refused}")
        found.require(not found.lost_processes, f"{found.lost_processes} processes were lost")
        found.breaches += [f"the neighbour: {error!r}" for error in self._neighbour.errors]
        if found.during is None:
            found.breaches.append("the neighbour was not answered at all")
            return
        slowest = found.during.slowest
        found.require(slowest <= _SLOWEST_POLL_IN_TESTS_SECONDS, f"the slowest poll took {slowest:.1f} s")
        found.bound(slowest, _SLOWEST_POLL_SECONDS, "seconds of the slowest poll")
        if not attack.is_fast:
            found.bound(found.during.p99, _P99_SECONDS, "seconds of the polls' 99th percentile")
        if attack.answered_within is not None:
            found.bound(found.slowest_answer, attack.answered_within, "seconds until an answer")
        growth = _growth(found.memory_before, found.memory_after)
        found.bound(growth, attack.memory_mib, "MiB more than before the attack")

    def wrong_events(self) -> dict[int, int]:
        """Count all events. Returns how many came of each prompt of the neighbour that did not get exactly one."""
        self._neighbour.finish_submitting()
        return self._wait_for_events(0, time.monotonic())


def _growth(before: Memory, after: Memory) -> int:
    return max(now - then for then, now in zip(before, after, strict=True))


@contextlib.contextmanager
def running(form: Form) -> Iterator[Neighbourhood]:
    """A stack, with a neighbour and attackers."""
    with stacks.running() as stack, contextlib.closing(Neighbourhood(stack, form)) as neighbourhood:
        yield neighbourhood
