"""The neighbour: a user who submits a prompt each second, polls it 20 times a second, and listens on a socket."""

import math
import time
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import httpx

from tests.faults.load import Call, LoadUser
from tests.faults.neighbours.stack import Stack
from tests.support.client import PASSWORD
from tests.support.servers import wait_until

ADDRESS = "203.0.113.7"
_POLL_INTERVAL_SECONDS = 0.05
_SECONDS_BETWEEN_PROMPTS = 1.1  # longer than the usual client keeps a connection
_POLL_TIMEOUT_SECONDS = 30


class Poll(NamedTuple):
    """A poll: when it was sent, and how many seconds it took."""

    sent: float
    seconds: float

    def expected(self) -> Iterator[float]:
        """The seconds of this poll, and of those that would have been sent meanwhile.

        A client that waits for an answer sends no polls during a stall, which then would count as a single slow one.
        This is HdrHistogram's correction (Tene: "How NOT to Measure Latency", 2013).
        """
        seconds = self.seconds
        while seconds > 0:
            yield seconds
            seconds -= _POLL_INTERVAL_SECONDS


class AnsweredPrompt(NamedTuple):
    """A prompt: when it was submitted, and how many seconds later a poll showed that it was completed."""

    id: int
    submitted: float
    seconds: float


class Neighbour(LoadUser):
    """The user's threads, and a record of what happened to them."""

    def __init__(self, stack: Stack) -> None:
        self.calls: list[Call] = []
        super().__init__([stack.url], self.calls, window=1, pause=0)
        self._http.headers["X-Forwarded-For"] = ADDRESS
        # Polls keep their connection; each prompt is submitted on a new one, because the usual client closes idle ones.
        self._polling = httpx.Client(timeout=_POLL_TIMEOUT_SECONDS, headers=self._http.headers)
        self.polls: list[Poll] = []
        self.answered: list[AnsweredPrompt] = []
        self._unanswered: dict[int, float] = {}
        self._submitting_since = math.inf
        self._submit_one()
        self.in_background(self._poll)
        self.in_background(self._submit)

    def log_in(self) -> None:
        self.call("login", "POST", "/login/", json={"username": self.username, "password": PASSWORD})

    def leave(self) -> None:
        super().leave()
        self._polling.close()

    def wait_for_polls(self, until: float) -> None:
        """Wait until every poll that was sent by then has been answered."""
        wait_until(
            lambda: (self.polls and self.polls[-1].sent >= until) or not self.is_busy, what="the neighbour's poll"
        )

    def is_answered(self, until: float) -> bool:
        """Whether every prompt submitted by then has been answered."""
        return all(submitted > until for submitted in [*self._unanswered.values(), self._submitting_since])

    def polls_between(self, start: float, end: float) -> list[float]:
        """The seconds of each poll that was sent then."""
        return [seconds for poll in self.polls[:] if start <= poll.sent < end for seconds in poll.expected()]

    def answers_between(self, start: float, end: float) -> list[AnsweredPrompt]:
        """The prompts that were submitted then, and are answered."""
        return [each for each in self.answered[:] if start <= each.submitted < end]

    def refused_between(self, start: float, end: float) -> dict[str, int]:
        """The requests that did not succeed then, by kind and status."""
        found = (call for call in self.calls[:] if start <= call.started < end)
        return dict(Counter(f"{call.kind} {call.answer}" for call in found if call.answer not in (200, 202)))

    def wrong_events(self, start: float = 0, end: float = math.inf) -> dict[int, int]:
        """How many events came of each answered prompt that did not get exactly one. Of those submitted then."""
        events = Counter(event.prompt_id for event in self.received[:])
        ids = [prompt.id for prompt in self.answers_between(start, end)]
        return {prompt_id: events[prompt_id] for prompt_id in ids if events[prompt_id] != 1}

    def _submit_one(self) -> None:
        self._submitting_since = started = time.monotonic()
        self._unanswered[self.submit("What is a tide?")] = started
        self._submitting_since = math.inf

    def _submit(self) -> None:
        while not self._stop_submitting.wait(_SECONDS_BETWEEN_PROMPTS):
            self._submit_one()

    def _poll(self) -> None:
        taken = 0.0
        while not self._stop_submitting.wait(max(0.0, _POLL_INTERVAL_SECONDS - taken)):
            sent = time.monotonic()
            prompt_id = next(iter([*self._unanswered]), self.accepted[-1])
            response = self.call("poll", "GET", f"/prompts/{prompt_id}/", http=self._polling)
            now = time.monotonic()
            taken = now - sent
            self.polls.append(Poll(sent, taken))
            is_completed = response is not None and response.is_success and response.json()["status"] == "completed"
            if is_completed and prompt_id in self._unanswered:
                submitted = self._unanswered.pop(prompt_id)
                self.answered.append(AnsweredPrompt(prompt_id, submitted, now - submitted))
