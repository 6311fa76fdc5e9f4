"""SQL statements of joining a room and of a push: exact counts, not times."""

import threading
import time

import pytest
from sqlalchemy import event

from api.realtime import ended_logins
from api.services import Services
from tests.support.processes import RemoteUser
from tests.support.servers import wait_until
from worker.pipeline import Pipeline


@pytest.fixture
def statements(services: Services) -> list[str]:
    """Record the SQL statements of the application from here on."""
    found: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if threading.current_thread().name != ended_logins.THREAD_NAME:
            found.append(statement)

    for engine in (services.sessions.kw["bind"], services.autocommit_engine):
        event.listen(engine, "before_cursor_execute", note)
    return found


@pytest.fixture
def settings(settings):
    """The relay polls the feeds once in a test, at its start."""
    return settings.model_copy(update={"feed_check_seconds": 3600})


def settle(statements: list[str]) -> None:
    """Wait for the relay's poll of a new room, and clear the record."""
    wait_until(lambda: any("unnest" in statement for statement in statements), what="the relay's poll of the feed")
    time.sleep(0.1)
    statements.clear()


@pytest.mark.parametrize("since", [None, 0])
def test_a_room_is_joined_again_with_one_sql_statement(app_url: str, statements: list[str], since: int | None) -> None:
    alice = RemoteUser(app_url)
    with alice.join() as first:
        first.receive()
        settle(statements)
        with alice.join(since=since) as second:
            second.receive()
            assert len(statements) == 1, statements  # the token is cached


def test_a_push_needs_no_sql_statement_for_any_number_of_sockets(
    app_url: str, statements: list[str], worker: Pipeline
) -> None:
    alice = RemoteUser(app_url)
    with alice.join() as one, alice.join() as two:
        one.receive(), two.receive()
        ids = [alice.submit(f"{i}") for i in range(3)]
        settle(statements)
        worker.process(len(ids))
        for room in (one, two):
            assert [room.receive_ending()["seq"] for _ in ids] == [1, 2, 3]
        assert statements == []
