"""Requests that wait for the same prompt share its reads: a thousand that wake up at once need two queries."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from flask import Flask
from sqlalchemy import event

from api.intake.user_slots import UserSlots
from api.realtime.long_poll import LongPoll
from api.realtime.single_flight import SingleFlight
from api.realtime.text_stream import StreamReads
from api.services import Services
from shared.prompts.queries import PromptRow
from tests.support.client import ApiUser
from tests.support.servers import MAX_WAIT_SECONDS, wait_until

REQUESTS = 20


class Gate:
    """Counts calls, and once it is closed makes the first one wait until it is opened."""

    def __init__(self) -> None:
        self.calls = 0
        self._open = threading.Event()
        self._open.set()

    def close(self) -> None:
        self.calls = 0
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def pass_through(self, *_: object) -> None:
        self.calls += 1
        assert self._open.wait(MAX_WAIT_SECONDS)


def callers(flight: SingleFlight) -> int:
    return sum(each.callers for each in flight._flights.values())


def test_requests_that_wake_up_at_once_are_two_queries_at_most(app: Flask, services: Services, alice: ApiUser) -> None:
    long_poll = LongPoll(services.relay, services.autocommit_engine, UserSlots(REQUESTS, "", ""))
    prompt_id, gate = alice.submit(), Gate()
    read, returned = long_poll._read, []

    def read_and_note(key: tuple[int, int]) -> tuple[PromptRow, int]:
        found = read(key)
        returned.append(key)
        return found

    long_poll._read = read_and_note

    def count_reads(_: object, __: object, statement: str, *___: object) -> None:
        if "prompt_text" in statement:  # and not the relay's checks
            gate.pass_through()

    def wait() -> PromptRow:
        with app.test_request_context():
            return long_poll.wait_for_end(alice.id, prompt_id, MAX_WAIT_SECONDS)

    event.listen(services.autocommit_engine, "before_cursor_execute", count_reads)
    with ThreadPoolExecutor(REQUESTS) as threads:
        waiting = [threads.submit(wait) for _ in range(REQUESTS)]
        wait_until(lambda: len(returned) == REQUESTS)  # each has subscribed, and read what is already there
        gate.close()
        alice.post(f"/prompts/{prompt_id}/cancel/")
        wait_until(lambda: callers(read) == REQUESTS)
        gate.open()
    assert {each.result(MAX_WAIT_SECONDS).status for each in waiting} == {"cancelled"}
    assert gate.calls <= 2


def test_streams_at_the_same_position_share_a_read_of_the_text(services: Services) -> None:
    gate = Gate()

    class Slow:
        def read(self, prompt_id: int, attempt: int, offset: int) -> str:
            gate.pass_through()
            return f"{prompt_id}-{attempt}-{offset}"

    reads = StreamReads(services.autocommit_engine, services.db_slots, Slow())  # type: ignore[arg-type]
    gate.close()
    read: Callable[[], str] = lambda: reads.text(1, 2, 3)  # noqa: E731
    with ThreadPoolExecutor(REQUESTS) as threads:
        results = [threads.submit(read) for _ in range(REQUESTS)]
        wait_until(lambda: callers(reads._texts) == REQUESTS)
        gate.open()
    assert {each.result(MAX_WAIT_SECONDS) for each in results} == {"1-2-3"}
    assert gate.calls <= 2
