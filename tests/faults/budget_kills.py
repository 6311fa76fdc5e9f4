"""Users spend their budgets while API and worker processes are killed."""

import random
import time
from contextlib import ExitStack
from uuid import uuid4

from tests.faults.cluster import Cluster
from tests.faults.load import LoadUser, questions
from tests.faults.outcome import Outcome
from tests.faults.process_kills import kill_any
from tests.faults.run import Run, under_load
from tests.faults.scale import Scale

_USERS = 4
#: Several times what a prompt of this load uses, also if a worker that stops leaves it to another a few times.
_RESERVED_OUTPUT_TOKENS = 200
#: What a prompt reserves at most: its answer, and its text of less than 100 bytes.
_MAX_RESERVED = _RESERVED_OUTPUT_TOKENS + 25
_SECONDS_BETWEEN_TRIES = 0.05


class BudgetRun(Run):
    """A run whose users end by themselves."""

    def expect_every_worker_to_consume(self) -> None:
        """Nothing is submitted any more."""


def budgets(cluster: Cluster, scale: Scale) -> Outcome:
    """Kill random processes with SIGKILL while users submit until their budgets are used up.

    At no moment is more used and reserved than a budget allows. In the end nothing is reserved, and what is left is
    less than a prompt needs. In this as in all scenarios, the ledger is the sum of the prompts.
    """
    environment = {"USER_MONTHLY_TOKENS": str(scale.budget), "RESERVED_OUTPUT_TOKENS": str(_RESERVED_OUTPUT_TOKENS)}
    with ExitStack() as stack:
        for api in cluster.apis:
            stack.enter_context(api.changed(**environment))
        cluster.wait_until_ready()
        outcome = _spend_under_kills(cluster, scale)
    cluster.wait_until_ready()
    return outcome


def _spend_under_kills(cluster: Cluster, scale: Scale) -> Outcome:
    rng, most = random.Random(), 0
    with under_load(cluster, "budgets under kill -9", users=0, browses=False, make_run=BudgetRun) as run:
        run.may_exit = True
        run.expected.add("429")
        run.users += [LoadUser(cluster.urls, run.calls, window=1, pause=0) for _ in range(_USERS)]
        for user in run.users:
            user.in_background(lambda user=user: _spend(user))
        next_kill = time.monotonic() + 0.5
        while any(user.is_busy for user in run.users):
            most = max(most, *_spent(run))
            if run.outcome.faults < scale.kills and time.monotonic() >= next_kill and kill_any(cluster, rng):
                run.note_fault()
                next_kill = time.monotonic() + rng.uniform(0.2, 2)
            run.pause(_SECONDS_BETWEEN_TRIES)
    outcome, left = run.outcome, [scale.budget - spent for spent in _spent(run)]
    outcome.require(most <= scale.budget, f"{most} tokens were used and reserved of a budget of {scale.budget}")
    outcome.require(all(0 <= each < _MAX_RESERVED for each in left), f"left of the budgets: {left}")
    reserved = [reserved for _, reserved in run.recorder.spent(user.id for user in run.users).values()]
    outcome.require(not any(reserved), f"still reserved: {reserved}")
    refused = outcome.answers.get("429", 0)
    outcome.notes = f"{_USERS} budgets of {scale.budget} tokens, {max(left)} left at most; refused: {refused}"
    return outcome


def _spent(run: Run) -> list[int]:
    """The tokens that each user has used and reserved."""
    return [used + reserved for used, reserved in run.recorder.spent(user.id for user in run.users).values()]


def _spend(user: LoadUser) -> None:
    """Submit until the budget is used up: a submission is refused although nothing is reserved."""
    for text in questions():
        headers = {"Idempotency-Key": uuid4().hex}
        while True:
            body = {"prompt_text": text, "websocket": True}
            response = user.persist("submit", "POST", "/prompts/", settled=(429,), json=body, headers=headers)
            if response.status_code != 429:
                user.accepted.append(response.json()["id"])
                break
            assert response.json()["type"].endswith("/budget-exceeded"), response.text
            (budget,) = user.persist("usage", "GET", "/usage/").json()["budgets"]
            if budget["reserved_tokens"] == 0 and budget["used_tokens"] + _MAX_RESERVED > budget["monthly_tokens"]:
                return
            time.sleep(_SECONDS_BETWEEN_TRIES)
