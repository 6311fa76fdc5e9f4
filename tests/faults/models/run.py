"""A run against a model server: the load of `tests/faults/run.py`, and counts of the answers' texts and attempts."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar
from uuid import uuid4

from tests.faults.load import LoadUser, PushedEvent
from tests.faults.models.fleet import Fleet
from tests.faults.models.scale import Scale
from tests.faults.outcome import Outcome
from tests.faults.run import Run, under_load
from tests.support.streaming_server import answer_to

#: The share of the users' prompts that should be answered at a time before a fault.
_BUSY_SHARE, _BUSY_SHARE_ON_A_SLOW_MACHINE = 0.95, 0.5
_FILL_SECONDS = 10
WAIT_SECONDS = 120


@dataclass
class ModelOutcome(Outcome):
    """The counts of one scenario. `wrong` and `miscounted` must be 0, too."""

    #: Completed with another text than the model's.
    wrong: int = 0
    #: Failed attempts for which the prompt's provider is not to blame.
    miscounted: int = 0

    promises: ClassVar[tuple[str, ...]] = (*Outcome.promises, "wrong", "miscounted")


@dataclass(frozen=True)
class Sent:
    """A prompt that a scenario has submitted itself."""

    user: LoadUser
    id: int
    text: str


class ModelRun(Run):
    """A fleet under load."""

    cluster: Fleet
    outcome: ModelOutcome

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.outcome = ModelOutcome(self.outcome.scenario)
        #: How many failed attempts of a prompt its provider is to blame for.
        self.excused = Counter[int]()
        self.may_lapse = False
        self.notes: list[str] = []
        self._started = self.recorder.now()

    @property
    def fleet(self) -> Fleet:
        return self.cluster

    def expect_busy(self, scale: Scale) -> int:
        """Wait until many prompts are answered at a time, if possible nearly all of the users'. Return how many."""
        started = time.monotonic()

        def is_busy() -> bool:
            share = _BUSY_SHARE if time.monotonic() - started < _FILL_SECONDS else _BUSY_SHARE_ON_A_SLOW_MACHINE
            return self.answering >= share * scale.at_a_time

        self.expect(is_busy, WAIT_SECONDS, "many answers at a time")
        return self.answering

    @property
    def answering(self) -> int:
        """The number of prompts that the model server answers."""
        now: int = self.fleet.model.stats()["now"]
        return now

    def expect_ready(self) -> None:
        self.expect(self.fleet.are_workers_ready, WAIT_SECONDS, "the start of the worker hosts")

    def submit(self, command: str, count: int) -> list[Sent]:
        """Submit prompts that begin with this word, by all users in turn."""
        users = [self.users[i % len(self.users)] for i in range(count)]
        texts = [f"{command} {uuid4().hex}" for _ in users]
        with ThreadPoolExecutor(len(self.users)) as pool:
            ids = pool.map(lambda user, text: user.submit(text), users, texts)
            return [Sent(*each) for each in zip(users, ids, texts, strict=True)]

    def settle(self) -> None:
        super().settle()
        requeues = self.recorder.requeues(self._started)
        failed = Counter(each.prompt_id for each in requeues if each.reason == "failed")
        self.outcome.miscounted += (failed - self.excused).total()
        lapsed = sum(each.reason == "lapsed" for each in requeues)
        if lapsed and not self.may_lapse:
            self.outcome.late.append(f"{lapsed} leases lapsed")

    def _count_user(self, user: LoadUser, feed: list[PushedEvent]) -> None:
        super()._count_user(user, feed)
        answers = self.recorder.answers(user.id)
        chunks = self.fleet.model.chunks
        self.outcome.wrong += sum(answer != answer_to(prompt, chunks) for prompt, answer in answers)


@contextlib.contextmanager
def running(fleet: Fleet, scale: Scale, name: str) -> Iterator[ModelRun]:
    """Put the fleet under load while the block runs, then settle and count."""
    load = under_load(
        fleet, name, users=scale.users, window=scale.window, pause=0, share_of_slow=0, browses=False, make_run=ModelRun
    )
    with load as run:
        yield run
        run.outcome.notes = "; ".join(run.notes)
