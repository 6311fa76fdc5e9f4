"""Leases of running attempts: they are renewed, and their attempts are interrupted."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.prompts.claims import Claim
from tests.support import lifecycle
from tests.support.client import ApiUser
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from worker.leases import ClaimLostError, Leases, WorkerStopping

LONG = timedelta(hours=1)
AT_ONCE = timedelta(0)


@pytest.fixture
def claim(alice: ApiUser, sessions: Sessions) -> Claim:
    prompt_id = alice.submit()
    with sessions.begin() as session:
        return lifecycle.claim(session, prompt_id)


@contextmanager
def waiting(leases: Leases, claim: Claim) -> Iterator[None]:
    """Hold the claim, run the block, and wait in silence until the attempt is interrupted."""
    silence = threading.Event()
    with leases.hold([claim]), leases.running(claim) as interruption, interruption.calling(silence.set):
        yield
        assert silence.wait(MAX_WAIT_SECONDS)
        interruption.check()


def test_a_cancel_interrupts_an_attempt_that_waits(alice: ApiUser, claim: Claim, sessions: Sessions) -> None:
    with pytest.raises(ClaimLostError), waiting(Leases(sessions, LONG), claim):
        alice.post(f"/prompts/{claim.id}/cancel/")


def test_an_attempt_is_interrupted_when_its_time_is_up(claim: Claim, sessions: Sessions) -> None:
    with pytest.raises(SoftTimeLimitExceeded), waiting(Leases(sessions, LONG, time_limit=AT_ONCE), claim):
        pass


def test_a_stop_interrupts_running_attempts_and_those_that_begin_afterwards(claim: Claim, sessions: Sessions) -> None:
    leases = Leases(sessions, LONG)
    for _ in range(2):
        with pytest.raises(WorkerStopping), waiting(leases, claim):
            leases.stop()


def test_the_interruption_replaces_the_error_that_it_has_led_to(claim: Claim, sessions: Sessions) -> None:
    leases = Leases(sessions, LONG)

    def fail_because_of_a_stop() -> None:
        with leases.hold([claim]), leases.running(claim):
            leases.stop()
            raise ConnectionResetError

    with pytest.raises(WorkerStopping):
        fail_because_of_a_stop()


def spin(until: threading.Event) -> None:
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while time.monotonic() < deadline and not until.is_set():
        pass


def test_code_that_ignores_its_interruption_gets_an_exception(claim: Claim, sessions: Sessions) -> None:
    leases = Leases(sessions, LONG, time_limit=AT_ONCE, interruption_timeout=AT_ONCE)
    with pytest.raises(SoftTimeLimitExceeded), leases.hold([claim]), leases.running(claim):
        spin(threading.Event())


def test_code_that_ignores_a_stop_is_stopped_by_an_exception(claim: Claim, sessions: Sessions) -> None:
    leases = Leases(sessions, LONG, time_limit=LONG, interruption_timeout=AT_ONCE)

    def go_on() -> None:
        with leases.hold([claim]), leases.running(claim):
            leases.stop()
            spin(threading.Event())

    with pytest.raises(WorkerStopping):
        go_on()


def test_a_thread_that_cannot_be_interrupted_is_reported(claim: Claim, sessions: Sessions) -> None:
    stuck = threading.Event()
    leases = Leases(sessions, LONG, time_limit=AT_ONCE, interruption_timeout=AT_ONCE, on_stuck=stuck.set)
    with leases.hold([claim]), leases.running(claim):
        for _ in range(2):
            with contextlib.suppress(SoftTimeLimitExceeded):
                spin(stuck)
    assert stuck.is_set()


def test_few_stuck_threads_do_not_stop_the_worker_but_lose_their_leases(
    alice: ApiUser, sessions: Sessions, claim: Claim
) -> None:
    with sessions.begin() as session:
        other = lifecycle.claim(session, alice.submit())
        session.execute(text("UPDATE prompts SET due_at = '2000-01-01'"))
    stuck = threading.Event()
    leases = Leases(sessions, LONG, time_limit=AT_ONCE, interruption_timeout=AT_ONCE, max_stuck=1, on_stuck=stuck.set)

    def hang(held: Claim, until: Callable[[], bool]) -> None:
        with leases.hold([held]), leases.running(held):
            while not until():
                with contextlib.suppress(SoftTimeLimitExceeded):
                    wait_until(until, what="the end")

    first = threading.Thread(target=hang, args=(claim, stuck.is_set))
    first.start()
    wait_until(lambda: any(attempt.is_stuck for attempt in leases._snapshot().values()), what="the stuck thread")
    assert not stuck.is_set()
    leases.renew()
    with sessions() as session:
        assert session.scalar(text("SELECT due_at < now() FROM prompts WHERE id = :id"), {"id": claim.id})
    hang(other, stuck.is_set)
    first.join(MAX_WAIT_SECONDS)


def test_code_that_goes_on_after_a_cancel_is_not_stuck_before_its_time_is_up(
    alice: ApiUser, claim: Claim, sessions: Sessions
) -> None:
    """It may wait for its provider, without noticing an interruption. Nobody may stop a worker by a cancel."""
    stuck, has_raised = threading.Event(), threading.Event()
    leases = Leases(sessions, LONG, time_limit=LONG, interruption_timeout=AT_ONCE, on_stuck=stuck.set)

    def go_on() -> None:
        with leases.hold([claim]), leases.running(claim):
            alice.post(f"/prompts/{claim.id}/cancel/")
            try:
                spin(stuck)
            except SoftTimeLimitExceeded:
                has_raised.set()
            leases._enforce()
            raise ValueError

    with pytest.raises(ClaimLostError):
        go_on()
    assert has_raised.is_set()
    assert not stuck.is_set()


def test_a_lost_claim_is_not_renewed(alice: ApiUser, claim: Claim, sessions: Sessions) -> None:
    leases = Leases(sessions, LONG)
    with leases.hold([claim]):
        alice.post(f"/prompts/{claim.id}/cancel/")
        leases.renew()
        with pytest.raises(ClaimLostError), leases.running(claim):
            pass


def test_an_unexpected_error_does_not_end_the_watch(
    alice: ApiUser, claim: Claim, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(sessions, LONG)
    check, errors = leases.check, [ValueError()]

    def fail_once() -> None:
        if errors:
            raise errors.pop()
        check()

    monkeypatch.setattr(leases, "check", fail_once)
    with pytest.raises(ClaimLostError), waiting(leases, claim):
        alice.post(f"/prompts/{claim.id}/cancel/")
    assert not errors
