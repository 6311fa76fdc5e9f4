"""The relay by itself, with its periodic look at the feed out of the way: what pub/sub and its own checks bring."""

import threading
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis.client import PubSub

from api.auth.token_cache import TokenCache
from api.realtime.relay import Relay, Subscription
from shared.accounts import users
from shared.db.engine import Sessions
from shared.messaging import announcements
from shared.messaging.announcements import Announcement, Announcer
from shared.messaging.redis import make_redis
from shared.prompts import submission
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.servers import wait_until

NEVER = 3600


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with make_redis(settings) as client:
        yield client


@pytest.fixture
def make_relay(redis: Redis, sessions: Sessions) -> Iterator[Callable[..., Relay]]:
    made: list[Relay] = []

    def make(**options: float) -> Relay:
        relay = Relay(redis, sessions.kw["bind"], TokenCache(), **({"check_seconds": NEVER} | options))
        relay.start()
        made.append(relay)
        return relay

    yield make
    for relay in made:
        relay.shut_down()


@pytest.fixture
def user_id(sessions: Sessions) -> int:
    with sessions.begin() as session:
        return users.create(session, "alice", "hash").id


def listeners(redis: Redis, user_id: int) -> int:
    ((_, count),) = redis.pubsub_numsub(announcements.channel(user_id))
    return count


def end_one(sessions: Sessions, user_id: int) -> Announcement:
    """Ends a prompt, and announces it to nobody."""
    with sessions.begin() as session:
        return announcements.from_finished(submission.cancel(session, user_id, lifecycle.submit(session, user_id).id))


def test_announcements_reach_every_subscription_of_the_user(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    relay = make_relay()
    with relay.subscribe(user_id) as one, relay.subscribe(user_id) as two, relay.subscribe(user_id + 1) as other:
        wait_until(lambda: listeners(redis, user_id) == 1)
        told = end_one(sessions, user_id)
        Announcer(redis).announce((user_id, told))
        assert [one.get(5), two.get(5)] == [told, told]
        assert other.get(0.1) is None


def test_what_happened_before_the_subscription_was_confirmed_is_hinted_at(
    make_relay, sessions: Sessions, user_id: int
) -> None:
    end_one(sessions, user_id)
    with make_relay().subscribe(user_id) as news:
        assert news.get(5) == Announcement(1)


def test_what_happened_during_a_silent_reconnect_is_hinted_at(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    with make_relay().subscribe(user_id) as news:
        for seq in range(1, 101):
            wait_until(lambda: listeners(redis, user_id) == 1)
            end_one(sessions, user_id)
            redis.client_kill_filter(_type="pubsub")
            assert news.get(5) == Announcement(seq)


def test_what_was_never_announced_is_found_by_looking(make_relay, sessions: Sessions, user_id: int) -> None:
    with make_relay(check_seconds=0.2).subscribe(user_id) as news:
        end_one(sessions, user_id)
        assert news.get(5) == Announcement(1)


def test_one_that_falls_behind_is_closed_alone(make_relay, redis: Redis, sessions: Sessions, user_id: int) -> None:
    relay = make_relay(queue_length=3)
    with relay.subscribe(user_id) as slow, relay.subscribe(user_id) as quick:
        wait_until(lambda: listeners(redis, user_id) == 1)
        for _ in range(5):
            Announcer(redis).announce((user_id, end_one(sessions, user_id)))
            assert quick.get(5) is not None
        assert (slow.overflowed, slow.get(1)) == (True, None)
        assert not quick.overflowed


def next_announced(news: Subscription) -> Announcement | None:
    """After the hint, if the relay's look at the feed was quicker."""
    announcement = news.get(5)
    return news.get(5) if announcement and announcement.prompt_id is None else announcement


def test_malformed_announcements_are_ignored(make_relay, redis: Redis, sessions: Sessions, user_id: int) -> None:
    with make_relay().subscribe(user_id) as news:
        wait_until(lambda: listeners(redis, user_id) == 1)
        for nonsense in ("", "{", "[]", "null", "{}", '{"seq": 1}'):
            redis.publish(announcements.channel(user_id), nonsense)
        told = end_one(sessions, user_id)
        Announcer(redis).announce((user_id, told))
        assert next_announced(news) == told


def test_deltas_of_an_ended_attempt_are_held_back_those_of_the_next_pass(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    with make_relay().subscribe(user_id) as news:
        wait_until(lambda: listeners(redis, user_id) == 1)
        ended = end_one(sessions, user_id)
        late, following = (Announcement(None, ended.prompt_id, attempt, "{}") for attempt in (0, 1))
        for announcement in (ended, late, following):
            Announcer(redis).announce((user_id, announcement))
        assert [next_announced(news), news.get(5)] == [ended, following]


def test_channels_that_nobody_needs_are_left(make_relay, redis: Redis, user_id: int) -> None:
    relay = make_relay(check_seconds=0.2)
    with relay.subscribe(user_id):
        wait_until(lambda: listeners(redis, user_id) == 1)
    wait_until(lambda: listeners(redis, user_id) == 0)
    with relay.subscribe(user_id):
        wait_until(lambda: listeners(redis, user_id) == 1)


def test_going_down_wakes_everybody_and_whoever_comes_later(make_relay, user_id: int) -> None:
    relay = make_relay()
    with relay.subscribe(user_id) as news:
        threading.Timer(0.1, relay.shut_down).start()
        assert news.get(10) is None
        assert news.going_down
    with relay.subscribe(user_id) as late:
        assert late.get(10) is None
        assert late.going_down


def test_looking_goes_on_if_a_channel_cannot_be_left(
    make_relay, redis: Redis, sessions: Sessions, user_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gevent refuses, with an error of its own, while the listener is connecting anew."""
    tried = threading.Event()

    def validate(*_: object) -> None:
        tried.set()
        raise AssertionError("This socket is already used by another greenlet")

    monkeypatch.setattr(PubSub, "unsubscribe", validate)
    relay = make_relay(check_seconds=0.1)
    with relay.subscribe(user_id + 1):
        wait_until(lambda: listeners(redis, user_id + 1) == 1)
    assert tried.wait(10)
    with relay.subscribe(user_id) as news:
        seq = end_one(sessions, user_id).seq
        assert news.get(10).seq == seq
