"""A restore of an older state of the database while clients with higher numbers are connected."""

import threading
import time
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import Engine, delete, update
from sqlalchemy.orm import Session

from api.realtime.long_poll import LongPoll
from api.services import Services
from shared.db import restored
from shared.db.engine import Sessions
from shared.db.models import FeedEntry, Status, User
from shared.db.restored import GAP
from shared.messaging import announcements
from shared.prompts import submission
from tests.support import lifecycle
from tests.support.client import ApiUser
from tests.support.processes import RemoteUser
from tests.support.servers import MAX_WAIT_SECONDS, wait_until


@pytest.fixture
def finish(sessions: Sessions, services: Services) -> Callable[..., int]:
    """Finish a new prompt of a user. Returns its number in the feed."""

    def finish_prompt(user_id: int, *, websocket: bool = False) -> int:
        with sessions.begin() as session:
            prompt = lifecycle.submit(session, user_id, websocket=websocket)
            finished = submission.cancel(session, user_id, prompt.id)
        services.announcer.announce((user_id, announcements.from_finished(finished)))
        return finished.seq

    return finish_prompt


def set_back(session, user_id: int, seq: int) -> None:
    session.execute(delete(FeedEntry).where(FeedEntry.user_id == user_id, FeedEntry.seq > seq))
    session.execute(update(User).where(User.id == user_id).values(seq=seq))


def test_an_open_socket_is_reset_and_follows_the_restored_feed(
    app_url: str, alice: ApiUser, services: Services, sessions: Sessions, finish: Callable[..., int]
) -> None:
    for _ in range(5):
        finish(alice.id)
    with RemoteUser(app_url, "alice", is_new=False).join() as room:
        assert room.receive()["seq"] == 5
        wait_until(lambda: services.relay._rooms[alice.id].seq == 5)
        with sessions.begin() as session:
            set_back(session, alice.id, 2)
        assert room.receive() == {"type": "reset", "seq": 2}
        assert finish(alice.id, websocket=True) == 3
        assert room.receive()["seq"] == 3


@pytest.mark.parametrize("finished_since", [0, 1])
def test_an_open_socket_is_reset_if_the_feed_does_not_continue_where_it_is(
    app_url: str,
    alice: ApiUser,
    services: Services,
    engine: Engine,
    sessions: Sessions,
    finish: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    finished_since: int,
) -> None:
    finish(alice.id)
    with RemoteUser(app_url, "alice", is_new=False).join() as room:
        assert room.receive()["seq"] == 1
        monkeypatch.setattr(services.relay._ended_logins, "check", lambda: None)  # a restore ends all logins
        with engine.begin() as connection:
            restored.skip_numbers(connection)
            for _ in range(finished_since):
                with Session(connection) as session:
                    prompt = lifecycle.submit(session, alice.id)
                    submission.cancel(session, alice.id, prompt.id)
        assert room.receive() == {"type": "reset", "seq": 1 + GAP}
        assert finished_since == 0 or room.receive()["seq"] == 2 + GAP
        assert finish(alice.id, websocket=True) == 2 + finished_since + GAP
        assert room.receive()["seq"] == 2 + finished_since + GAP


@pytest.mark.parametrize("since", [0, 1, 2, GAP])
def test_a_client_with_a_number_from_before_a_restore_is_reset(
    app_url: str, alice: ApiUser, engine: Engine, finish: Callable[..., int], since: int
) -> None:
    finish(alice.id)
    with engine.begin() as connection:
        restored.skip_numbers(connection)
    user = RemoteUser(app_url, "alice", is_new=False)
    with user.join(since=since) as room:
        assert room.receive()["type"] == "connected"
        assert room.receive() == {"type": "reset", "seq": 1 + GAP}
        finish(alice.id, websocket=True)
        assert room.receive()["seq"] == 2 + GAP
    with user.join(since=1 + GAP) as room:
        assert [room.receive()["type"] for _ in range(2)] == ["connected", "prompt.cancelled"]


def test_a_room_with_a_number_that_the_database_never_had_loses_no_event(
    app_url: str, alice: ApiUser, services: Services, finish: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(alice.id)
    with RemoteUser(app_url, "alice", is_new=False).join() as room:
        assert room.receive()["seq"] == 1
        wait_until(lambda: services.relay._rooms[alice.id].seq == 1)
        services.announcer.announce((alice.id, announcements.Announcement(10**15)))
        wait_until(lambda: services.relay._rooms[alice.id].seq == 1, what="the room's number being corrected")
        monkeypatch.setattr(services.announcer, "announce", lambda *_: None)
        finish(alice.id, websocket=True)
        assert room.receive()["seq"] == 2


def test_a_waiting_request_sees_a_prompt_that_finished_under_a_lower_number(
    app: Flask, services: Services, sessions: Sessions, alice: ApiUser, finish: Callable[..., int]
) -> None:
    for _ in range(5):
        finish(alice.id)
    prompt_id = alice.submit()
    answered: list[str] = []
    poll = LongPoll(services.relay, services.autocommit_engine, services.user_limits.waits)

    def wait() -> None:
        with app.app_context():
            answered.append(poll.wait_for_end(alice.id, prompt_id, MAX_WAIT_SECONDS).status)

    waiting = threading.Thread(target=wait)
    started = time.monotonic()
    waiting.start()
    wait_until(lambda: (room := services.relay._rooms.get(alice.id)) is not None and room.seq == 5)
    with sessions.begin() as session:
        set_back(session, alice.id, 2)
        submission.cancel(session, alice.id, prompt_id)
    waiting.join(MAX_WAIT_SECONDS)
    assert answered == [Status.CANCELLED]
    assert time.monotonic() - started < MAX_WAIT_SECONDS
