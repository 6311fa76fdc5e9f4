"""Workers of a route with a limit: they use all of its slots and no more, and adapt to their provider."""

import itertools
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text

from shared.db.engine import Sessions
from shared.errors import ProviderError, ProviderOverloadedError
from shared.messaging.announcements import Announcer
from shared.messaging.redis import make_redis
from shared.prompts import claims, submission
from shared.providers import GenerationRequest
from shared.settings import Settings
from shared.telemetry import metrics
from tests.support.lifecycle import MINUTE
from tests.support.providers import Script
from tests.support.servers import MAX_WAIT_SECONDS, wait_until
from tests.support.user_queue import UserQueue
from tests.support.worker_threads import MemoryQueue, Provider, with_provider, working
from worker.maintenance.reaper import Reaper
from worker.pipeline import Pipeline


@pytest.fixture
def messages() -> MemoryQueue:
    return MemoryQueue()


@pytest.fixture
def reaper(settings: Settings, sessions: Sessions, messages: MemoryQueue) -> Reaper:
    limited = settings.model_copy(update={"generator": "openai", "openai_concurrency": 3})
    return Reaper(limited, sessions, messages, Announcer(make_redis(settings)))


def count(sessions: Sessions, status: str) -> int:
    with sessions() as session:
        return session.scalar(text("SELECT count(*) FROM prompts WHERE status = :status"), {"status": status})


def too_many() -> ProviderError:
    return ProviderOverloadedError("Too many requests.")


@pytest.mark.parametrize("messages_of", [1, 12])
def test_all_slots_are_used_and_no_more(
    worker: Pipeline, queue: UserQueue, messages: MemoryQueue, sessions: Sessions, messages_of: int
) -> None:
    """Two hosts, and no reaper: whenever a prompt has ended, the next one starts."""
    may_end = threading.Semaphore(0)
    provider = Provider(lambda: may_end.acquire(timeout=MAX_WAIT_SECONDS))
    hosts = [with_provider(worker, messages, provider, ceiling=3) for _ in range(2)]
    queue.submit(*"abcd" * 3)
    for _ in range(12 // messages_of):
        messages.wake("default", messages_of)
    with working(hosts, threads=4):
        for ended in range(0, 12, 2):
            wait_until(lambda n=ended: len(provider.texts) == min(12, n + 3), what="the slots in use")
            may_end.release(2)
        wait_until(lambda: count(sessions, "completed") == 12, what="all prompts answered")
    assert provider.most == 3


class Ending(Script):
    """The first two prompts wait for an event and then end as the test wants; it answers the others."""

    def __init__(self, end: ProviderError | None) -> None:
        super().__init__("the answer")
        self.end, self.may_end, self.started = end, threading.Event(), threading.Semaphore(0)

    def generate(self, request: GenerationRequest) -> Iterator[str]:
        self.calls += 1
        if self.calls > 2:
            yield "the answer"
            return
        self.started.release()
        assert self.may_end.wait(MAX_WAIT_SECONDS)
        if self.end is not None:
            raise self.end
        yield "the answer"


@pytest.mark.parametrize(
    "end", [ProviderError("no"), ProviderError("never", retryable=False), None], ids=["retried", "failed", "cancelled"]
)
def test_the_slot_of_a_prompt_that_ends_without_an_answer_is_used_again(
    worker: Pipeline, queue: UserQueue, messages: MemoryQueue, sessions: Sessions, end: ProviderError | None
) -> None:
    provider = Ending(end)
    host = with_provider(worker, messages, provider, ceiling=2)  # type: ignore[arg-type]
    ids = queue.submit(*"aaaa")
    with working([host], threads=4):
        messages.wake("default", 4)
        assert provider.started.acquire(timeout=MAX_WAIT_SECONDS)
        assert provider.started.acquire(timeout=MAX_WAIT_SECONDS)
        wait_until(lambda: messages.length() == 0, what="the surplus messages dropped")
        if end is None:
            with sessions.begin() as session:
                for prompt_id in ids[:2]:
                    submission.cancel(session, queue.user("a"), prompt_id)
        provider.may_end.set()
        wait_until(lambda: count(sessions, "completed") == 2, what="the others answered")


def test_a_provider_with_a_small_capacity_answers_all_prompts_at_its_own_speed(
    worker: Pipeline, queue: UserQueue, messages: MemoryQueue, sessions: Sessions
) -> None:
    """A burst of 12 for a provider that takes 4: no prompt fails, waits for a reaper, or counts an attempt."""
    reductions = metrics.concurrency_reductions._value.get()
    burst, calls = threading.Barrier(12), itertools.count()

    class Burst(Provider):
        def generate(self, request: GenerationRequest) -> Iterator[str]:
            if next(calls) < 12:
                burst.wait(MAX_WAIT_SECONDS)
            return super().generate(request)

    may_end = threading.Event()
    provider = Burst(lambda: may_end.wait(MAX_WAIT_SECONDS), capacity=4, refusal=too_many)
    queue.submit(*"abc" * 4)
    for _ in range(12):
        messages.wake("default", 1)
    with working([with_provider(worker, messages, provider)], threads=12):
        wait_until(lambda: provider.refused == 8 and count(sessions, "queued") == 8, what="the refusals")
        may_end.set()
        wait_until(lambda: count(sessions, "completed") == 12, what="all prompts answered")
    assert provider.most <= 4
    with sessions() as session:
        assert session.scalar(text("SELECT unavailable_since FROM routes")) is None
        assert session.scalar(text("SELECT min(attempt_limit - attempt) FROM prompts")) >= 4
    assert metrics.concurrency_reductions._value.get() > reductions


@pytest.mark.parametrize(("retry_after", "others", "is_paused"), [(None, 1, False), (20, 1, True), (None, 0, True)])
def test_an_overloaded_route_is_paused_if_it_answers_no_other_or_asks_for_it(
    worker: Pipeline,
    queue: UserQueue,
    messages: MemoryQueue,
    sessions: Sessions,
    retry_after: float | None,
    others: int,
    is_paused: bool,
) -> None:
    queue.submit(*"ab")
    for _ in range(others):
        queue.claim()
    refusal = ProviderOverloadedError("Too many requests.", retry_after=retry_after)
    refusing = with_provider(worker, messages, Script(refusal))  # type: ignore[arg-type]
    refusing.process(1)
    with sessions() as session:
        paused, detail, limit = session.execute(
            text("SELECT paused_until IS NOT NULL, pause_detail, concurrency FROM routes")
        ).one()
        turns = session.scalar(text("SELECT count(turn) FROM prompts WHERE status = 'queued'"))
    assert (paused, detail, limit, turns) == (is_paused, "Too many requests." if is_paused else None, 1, 2 - others)
    refusing.process(1)
    assert refusing.generator.calls == 1  # type: ignore[attr-defined]


def test_the_last_refusal_of_a_burst_does_not_pause_the_route(
    worker: Pipeline, queue: UserQueue, sessions: Sessions
) -> None:
    """It is alone only because the others of its burst were released before."""
    queue.submit(*"abc")
    with sessions.begin() as session:
        burst = claims.claim(session, worker.route, 3, MINUTE).claims
    for refused in burst:
        with sessions.begin() as session:
            worker.provider_status.record_unavailable(session, [refused], ProviderOverloadedError("Too many requests."))
            claims.release(session, [refused], grace=MINUTE)
    with sessions() as session:
        assert session.execute(text("SELECT paused_until, concurrency FROM routes")).one() == (None, 1)


def test_a_prompt_that_an_overloaded_provider_always_refuses_loses_its_turn(
    worker: Pipeline, queue: UserQueue, messages: MemoryQueue, sessions: Sessions
) -> None:
    queue.submit(*"abb")
    queue.claim()
    refusing = with_provider(worker, messages, Script(too_many()))  # type: ignore[arg-type]
    for _ in range(4):
        with sessions.begin() as session:
            session.execute(text("UPDATE routes SET concurrency = NULL"))
        refusing.process(1)
    with sessions() as session:
        attempts = session.execute(text("SELECT attempt, turn FROM prompts WHERE request_id = 'b' ORDER BY id")).all()
    assert attempts[0] == (4, None)
    assert attempts[1].attempt == 0


def test_the_reaper_wakes_up_workers_for_free_slots_only(
    queue: UserQueue, messages: MemoryQueue, reaper: Reaper
) -> None:
    queue.submit(*"ab" * 4)
    for expected in (3, 2, 1):
        reaper.round()
        assert messages.messages.get() == expected
        queue.claim()
    reaper.round()
    assert messages.length() == 0


def test_the_probe_starts_soon_after_a_pause(
    queue: UserQueue, messages: MemoryQueue, reaper: Reaper, sessions: Sessions
) -> None:
    queue.submit(*"ab")
    reaper.start_probes()
    assert messages.length() == 0
    for seconds, woken in ((60, 0), (-1, 1)):
        with sessions.begin() as session:
            session.execute(text("DELETE FROM routes"))
            session.execute(
                text("INSERT INTO routes (route, paused_until) VALUES ('default', now() + :seconds * interval '1 s')"),
                {"seconds": seconds},
            )
        reaper.start_probes()
        assert messages.length() == woken


def test_a_limit_that_was_reduced_during_an_attempt_counts_at_its_end(
    worker: Pipeline, queue: UserQueue, messages: MemoryQueue, sessions: Sessions
) -> None:
    """It was claimed without a limit, and nothing else will end: it must wake up the next worker."""

    def reduce() -> None:
        with sessions.begin() as session:
            session.execute(text("UPDATE routes SET concurrency = 1, concurrency_reduced_at = now()"))

    queue.submit(*"aaa")
    host = with_provider(worker, messages, Provider(reduce))
    host.process(1)
    assert messages.messages.get(timeout=1) == 1
