"""Following a prompt, without HTTP: signs of life, and ends that nobody announces."""

import threading
import time
from itertools import islice

from api.auth.token_cache import Principal
from api.realtime.text_stream import Position, TextStream
from api.services import Services
from shared.messaging.announcements import Announcement
from tests.support import lifecycle
from tests.support.client import ApiUser


def follower(
    services: Services, user: ApiUser, prompt_id: int, *, seconds: float = 60, heartbeat_seconds: float = 0.05
) -> TextStream:
    caller = Principal(user.id, user.username, None, time.time() + seconds)
    return TextStream(
        services.relay,
        services.autocommit_engine,
        services.db_slots,
        services.partial_text,
        caller,
        prompt_id,
        Position(),
        heartbeat_seconds=heartbeat_seconds,
    )


def test_there_are_signs_of_life(services: Services, alice: ApiUser) -> None:
    events = follower(services, alice, alice.submit()).events()
    assert [event.kind for event in islice(events, 4)] == [None] * 4


def test_it_ends_when_the_token_does(services: Services, alice: ApiUser) -> None:
    events = list(follower(services, alice, alice.submit(), seconds=0.2).events())
    assert {event.kind for event in events} == {None}


def test_there_are_signs_of_life_while_others_have_news(services: Services, alice: ApiUser) -> None:
    following = follower(services, alice, alice.submit())
    events = following.events()
    next(events)
    foreign = Announcement(None, prompt_id=10**9, attempt=1)
    (news,) = services.relay._rooms[alice.id].subscribers
    stop = threading.Event()

    def chatter() -> None:
        while not stop.wait(0.005):
            news.put(foreign)

    talking = threading.Thread(target=chatter)
    talking.start()
    assert next(events).kind is None
    stop.set()
    talking.join()


def test_an_end_whose_announcement_was_lost_is_found_by_its_number(services: Services, alice: ApiUser) -> None:
    prompt_id = alice.submit()
    events = follower(services, alice, prompt_id, heartbeat_seconds=30).events()
    next(events)
    with services.sessions.begin() as session:
        ending = lifecycle.complete(session, lifecycle.claim(session, prompt_id), "the answer")
    (news,) = services.relay._rooms[alice.id].subscribers
    news.put(Announcement(ending.seq))
    begun = time.monotonic()
    assert [event.kind for event in events] == ["prompt.delta", "prompt.completed"]
    assert time.monotonic() - begun < 15


def test_a_text_that_begins_again_replaces_what_was_there(services: Services, alice: ApiUser) -> None:
    """As when Postgres has forgotten a claim, and hands the attempt out again under the same number."""
    announcement = Announcement(None, prompt_id=1, attempt=1)
    for text in ("the first worker said a lot", "the second"):
        assert services.partial_text.write(alice.id, 0, text, announcement)
    assert services.partial_text.read(1, 1, 0) == "the second"


def test_an_end_that_nobody_announces_is_seen(make_app) -> None:
    app, services = make_app(feed_check_seconds=3_600)
    alice = ApiUser(app, "alice")
    prompt_id = alice.submit()
    events = follower(services, alice, prompt_id).events()
    next(events)
    with services.sessions.begin() as session:
        lifecycle.complete(session, lifecycle.claim(session, prompt_id), "the answer")
    told = [event for event in events if event.kind]
    assert [event.kind for event in told] == ["prompt.delta", "prompt.completed"]
    assert told[0].data["text"] == "the answer"


def test_an_empty_position_is_the_beginning(alice: ApiUser) -> None:
    prompt_id = alice.submit()
    alice.post(f"/prompts/{prompt_id}/cancel/")
    response = alice.get(f"/prompts/{prompt_id}/stream/", headers={"Last-Event-ID": ""})
    assert response.status_code == 200
    assert "event: prompt.cancelled" in response.text
