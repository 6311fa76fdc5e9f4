"""A prompt's text stream, without HTTP: heartbeats, and endings whose announcement is lost."""

import threading
import time
from datetime import timedelta
from itertools import islice

from redis import Redis
from structlog.testing import capture_logs

from api.auth.principal import Principal
from api.realtime.text_stream import Position, StreamReads, TextStream
from api.services import Services
from shared.messaging.announcements import Announcement
from shared.messaging.partial_text import PartialText, Write
from shared.messaging.redis import make_redis
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.client import ApiUser
from tests.support.servers import MAX_WAIT_SECONDS


def text_stream(
    services: Services, user: ApiUser, prompt_id: int, *, seconds: float = 60, heartbeat_seconds: float = 0.05
) -> TextStream:
    caller = Principal(user.id, user.username, None, time.time() + seconds)
    return TextStream(
        services.relay,
        StreamReads(services.autocommit_engine, services.db_slots, services.partial_text),
        caller,
        prompt_id,
        Position(),
        heartbeat_seconds=heartbeat_seconds,
    )


def test_an_idle_stream_sends_heartbeats(services: Services, alice: ApiUser) -> None:
    events = text_stream(services, alice, alice.submit()).events()
    assert [event.kind for event in islice(events, 4)] == [None] * 4


def test_a_stream_ends_when_its_token_expires(services: Services, alice: ApiUser) -> None:
    events = list(text_stream(services, alice, alice.submit(), seconds=0.2).events())
    assert {event.kind for event in events} == {None}


def test_a_stream_sends_heartbeats_during_announcements_about_other_prompts(services: Services, alice: ApiUser) -> None:
    stream = text_stream(services, alice, alice.submit())
    events = stream.events()
    next(events)
    foreign = Announcement(None, prompt_id=10**9, attempt=1)
    (subscription,) = services.relay._rooms[alice.id].subscribers
    stop = threading.Event()

    def announce_foreign() -> None:
        while not stop.wait(0.005):
            subscription.put(foreign)

    announcing = threading.Thread(target=announce_foreign)
    announcing.start()
    assert next(events).kind is None
    stop.set()
    announcing.join(MAX_WAIT_SECONDS)


def test_an_ending_without_its_own_announcement_is_found_by_its_feed_number(services: Services, alice: ApiUser) -> None:
    prompt_id = alice.submit()
    events = text_stream(services, alice, prompt_id, heartbeat_seconds=30).events()
    next(events)
    with services.sessions.begin() as session:
        ending = lifecycle.complete(session, lifecycle.claim(session, prompt_id), "the answer")
    (subscription,) = services.relay._rooms[alice.id].subscribers
    subscription.put(Announcement(ending.seq))
    started = time.monotonic()
    assert [event.kind for event in events] == ["prompt.delta", "prompt.completed"]
    assert time.monotonic() - started < 15


def test_a_partial_text_that_restarts_replaces_the_earlier_text(services: Services, alice: ApiUser) -> None:
    """This happens if Postgres loses a claim in a crash: the attempt is claimed again under the same number."""
    announcement = Announcement(None, prompt_id=1, attempt=1)
    for text in ("the first worker said a lot", "the second"):
        assert services.partial_text.write([Write(alice.id, 0, text, announcement)]) == [True]
    assert services.partial_text.read(1, 1, 0) == "the second"


def test_an_ending_that_is_never_announced_is_found_by_polling(make_app) -> None:
    app, services = make_app(feed_check_seconds=3_600)
    alice = ApiUser(app, "alice")
    prompt_id = alice.submit()
    events = text_stream(services, alice, prompt_id).events()
    next(events)
    with services.sessions.begin() as session:
        lifecycle.complete(session, lifecycle.claim(session, prompt_id), "the answer")
    received = [event for event in events if event.kind]
    assert [event.kind for event in received] == ["prompt.delta", "prompt.completed"]
    assert received[0].data["text"] == "the answer"


def test_an_empty_last_event_id_starts_at_the_beginning(alice: ApiUser) -> None:
    prompt_id = alice.submit()
    alice.post(f"/prompts/{prompt_id}/cancel/")
    response = alice.get(f"/prompts/{prompt_id}/stream/", headers={"Last-Event-ID": ""})
    assert response.status_code == 200
    assert "event: prompt.cancelled" in response.text


def test_a_key_of_another_type_is_read_as_no_text(services: Services, alice: ApiUser, settings) -> None:
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        redis.rpush("promptwire:text:1:1", "forged")
        redis.set("promptwire:text:1:2", b"\xff\xfeTides")
    assert services.partial_text.read(1, 1, 0) == ""
    assert services.partial_text.read(1, 2, 0) == "Tides"


def test_a_long_text_is_read_in_parts(services: Services, settings) -> None:
    with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
        redis.set("promptwire:text:1:1", "é" * 600_000)
    first = services.partial_text.read(1, 1, 0)
    assert first + services.partial_text.read(1, 1, len(first.encode())) == "é" * 600_000
    assert len(first.encode()) <= 1 << 20


def test_an_outage_is_logged_once_and_so_is_its_end(services: Services, settings: Settings) -> None:
    partial_text = PartialText(make_redis(settings), timedelta(minutes=1))
    write = Write(1, 0, "Hi", Announcement(None, prompt_id=1, attempt=1))
    unavailable = Redis(port=9, socket_connect_timeout=1)
    with capture_logs() as logs:
        for redis in (unavailable, unavailable, make_redis(settings), make_redis(settings)):
            partial_text._redis = redis
            partial_text.write([write])
    assert [line["event"] for line in logs] == ["partial text not written", "partial text written again"]
