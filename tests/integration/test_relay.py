"""The relay by itself: what arrives by pub/sub, and what its own checks find. Its periodic poll of the feed is off."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.client import PubSub
from sqlalchemy import delete, update

from api.auth.token_cache import TokenCache
from api.realtime.relay import Relay
from api.realtime.subscription import Subscription
from api.services import Services
from shared.accounts import users
from shared.db.engine import Executor, Sessions
from shared.db.models import FeedEntry, User
from shared.messaging import announcements
from shared.messaging.announcements import Announcement, Announcer
from shared.messaging.channels import Channels
from shared.messaging.redis import make_redis
from shared.prompts import feed, submission
from shared.settings import Settings
from tests.support import lifecycle
from tests.support.servers import MAX_WAIT_SECONDS, wait_until

NEVER_SECONDS = 3600


@pytest.fixture
def redis(settings: Settings) -> Iterator[Redis]:
    with make_redis(settings) as client:
        yield client


@pytest.fixture
def make_relay(redis: Redis, sessions: Sessions) -> Iterator[Callable[..., Relay]]:
    made: list[Relay] = []

    def make(**options: float) -> Relay:
        relay = Relay(redis, sessions.kw["bind"], TokenCache(), **({"check_seconds": NEVER_SECONDS} | options))
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
    ((_, count),) = redis.pubsub_numsub(Channels(redis).of_user(user_id))
    return count


def finish_prompt(sessions: Sessions, user_id: int) -> Announcement:
    """Finish a prompt without announcing it."""
    with sessions.begin() as session:
        return announcements.from_finished(submission.cancel(session, user_id, lifecycle.submit(session, user_id).id))


def test_announcements_reach_every_subscription_of_the_user(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    relay = make_relay()
    with relay.subscribe(user_id) as one, relay.subscribe(user_id) as two, relay.subscribe(user_id + 1) as other:
        wait_until(lambda: listeners(redis, user_id) == 1)
        announced = finish_prompt(sessions, user_id)
        Announcer(redis).announce((user_id, announced))
        assert [one.get(5), two.get(5)] == [announced, announced]
        assert other.get(0.1) is None


def test_an_event_before_the_subscription_was_confirmed_is_announced_by_its_number(
    make_relay, sessions: Sessions, user_id: int
) -> None:
    finish_prompt(sessions, user_id)
    with make_relay().subscribe(user_id) as subscription:
        assert subscription.get(5) == Announcement(1)


def test_an_event_during_a_silent_reconnect_is_announced_by_its_number(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    with make_relay().subscribe(user_id) as subscription:
        for seq in range(1, 101):
            wait_until(lambda: listeners(redis, user_id) == 1)
            finish_prompt(sessions, user_id)
            redis.client_kill_filter(_type="pubsub")
            assert subscription.get(5) == Announcement(seq)


def test_an_event_that_was_never_announced_is_found_by_polling(make_relay, sessions: Sessions, user_id: int) -> None:
    with make_relay(check_seconds=0.2).subscribe(user_id) as subscription:
        finish_prompt(sessions, user_id)
        assert subscription.get(5) == Announcement(1)


def test_a_check_does_not_announce_what_is_on_its_way(
    make_relay, redis: Redis, sessions: Sessions, user_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The announcement comes after the check has asked Postgres."""
    relay, is_listening, finished = make_relay(check_seconds=0.1), threading.Event(), []

    def announce() -> None:
        finished.append(finish_prompt(sessions, user_id))
        Announcer(redis).announce((user_id, finished[-1]))

    def changed(executor: Executor, known: Mapping[int, int]) -> dict[int, int]:
        if not is_listening.is_set() or finished:
            return feed.changed(executor, known)
        announce()
        wait_until(lambda: relay._rooms[user_id].seq == 1)
        return {user_id: 1}

    monkeypatch.setattr("api.realtime.relay.feed", SimpleNamespace(changed=changed))
    with relay.subscribe(user_id) as subscription:
        wait_until(lambda: listeners(redis, user_id) == 1)
        is_listening.set()
        announced = [subscription.get(MAX_WAIT_SECONDS)]
        announce()
        announced.append(subscription.get(MAX_WAIT_SECONDS))
    assert announced == finished


def test_only_the_subscription_that_falls_behind_is_closed(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    relay = make_relay(queue_length=3)
    with relay.subscribe(user_id) as slow, relay.subscribe(user_id) as quick:
        wait_until(lambda: listeners(redis, user_id) == 1)
        for _ in range(5):
            Announcer(redis).announce((user_id, finish_prompt(sessions, user_id)))
            assert quick.get(5) is not None
        assert (slow.overflowed, slow.get(1)) == (True, None)
        assert not quick.overflowed


def next_announced(subscription: Subscription) -> Announcement | None:
    """Return the next announcement; skip the number alone, which comes first if the relay's poll was quicker."""
    announcement = subscription.get(5)
    return subscription.get(5) if announcement and announcement.prompt_id is None else announcement


def test_an_installation_with_another_database_of_the_same_server_is_not_heard(
    make_relay, redis: Redis, settings: Settings, sessions: Sessions, user_id: int
) -> None:
    """Redis has one set of channels for all databases. The other installation has users of the same ids."""
    own = settings.redis_url.get_secret_value()
    other = make_redis(settings.model_copy(update={"redis_url": SecretStr(own.removesuffix("/0") + "/7")}))
    with make_relay().subscribe(user_id) as subscription:
        wait_until(lambda: listeners(redis, user_id) == 1)
        announced = finish_prompt(sessions, user_id)
        Announcer(other).announce((user_id, replace(announced, attempt=announced.attempt + 1)))
        Announcer(redis).announce((user_id, announced))
        assert next_announced(subscription) == announced
    assert Channels(other).user_id(Channels(other).of_user(user_id)) == user_id


def test_malformed_announcements_are_ignored(make_relay, redis: Redis, sessions: Sessions, user_id: int) -> None:
    with make_relay().subscribe(user_id) as subscription:
        wait_until(lambda: listeners(redis, user_id) == 1)
        for nonsense in ("", "{", "[]", "null", "{}", '{"seq": 1}', b"\xff", '{"seq": 1e30, "prompt_id": null}'):
            redis.publish(Channels(redis).of_user(user_id), nonsense)
        announced = finish_prompt(sessions, user_id)
        Announcer(redis).announce((user_id, announced))
        assert next_announced(subscription) == announced


@pytest.mark.parametrize(
    "forged",
    [
        '{"seq": 1e30, "prompt_id": null, "attempt": 0, "message": null}',
        '{"seq": 9223372036854775807, "prompt_id": null, "attempt": 0, "message": null}',
        '{"seq": 9223372036854775808, "prompt_id": null, "attempt": 0, "message": null}',
        '{"seq": 1, "prompt_id": 1, "attempt": 0, "message": 5}',
        b"\xff",
    ],
)
def test_a_forged_announcement_to_one_user_does_not_hide_events_of_any_user(
    make_relay, redis: Redis, sessions: Sessions, user_id: int, forged: str | bytes
) -> None:
    with sessions.begin() as session:
        other_id = users.create(session, "bob", "hash").id
    relay = make_relay(check_seconds=0.1)
    with relay.subscribe(user_id) as disturbed, relay.subscribe(other_id) as other:
        wait_until(lambda: listeners(redis, user_id) == 1)
        redis.publish(Channels(redis).of_user(user_id), forged)
        redis.publish(Channels(redis).logins, "9" * 5_000)
        redis.publish(Channels(redis).logins, b"\xff")
        for each in (user_id, other_id):
            finish_prompt(sessions, each)  # without an announcement: only the check can find it
        assert other.get(MAX_WAIT_SECONDS) == Announcement(1)
        wait_until(lambda: disturbed.get(MAX_WAIT_SECONDS).seq == 1)


def test_an_error_of_one_subscriber_does_not_keep_announcements_from_the_others(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    class Failing(Subscription):
        def put(self, announcement: Announcement) -> None:
            raise RuntimeError

    relay = make_relay()
    failing = [Failing(1) for _ in range(5)]
    for subscriber in failing:
        relay.enter(user_id, subscriber)
    with relay.subscribe(user_id) as subscription:
        wait_until(lambda: listeners(redis, user_id) == 1)
        for _ in range(2):
            announced = finish_prompt(sessions, user_id)
            Announcer(redis).announce((user_id, announced))
            assert next_announced(subscription) == announced


def test_a_restored_feed_is_announced_and_followed_from_its_lower_number(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    """As after a restore of an older backup."""
    relay = make_relay(check_seconds=0.1)
    for _ in range(5):
        finish_prompt(sessions, user_id)
    with relay.subscribe(user_id) as subscription:
        assert subscription.get(MAX_WAIT_SECONDS) == Announcement(5)
        set_back(sessions, user_id, 2)
        assert subscription.get(MAX_WAIT_SECONDS) == Announcement(2, restored=True)
        finish_prompt(sessions, user_id)
        assert subscription.get(MAX_WAIT_SECONDS) == Announcement(3)


def test_a_number_that_was_found_before_a_restore_is_not_announced_after_it(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    relay = make_relay()
    for _ in range(5):
        finish_prompt(sessions, user_id)
    with relay.subscribe(user_id) as subscription:
        assert subscription.get(MAX_WAIT_SECONDS) == Announcement(5)
        relay._missing = {user_id: 5}  # a check may find it while it is on its way
        set_back(sessions, user_id, 2)
        relay._announce_missing()
        assert subscription.get(MAX_WAIT_SECONDS) == Announcement(2, restored=True)
        finish_prompt(sessions, user_id)
        for _ in range(2):
            relay._announce_missing()
        assert subscription.get(MAX_WAIT_SECONDS) == Announcement(3)


def set_back(sessions: Sessions, user_id: int, seq: int) -> None:
    with sessions.begin() as session:
        session.execute(delete(FeedEntry).where(FeedEntry.user_id == user_id, FeedEntry.seq > seq))
        session.execute(update(User).where(User.id == user_id).values(seq=seq))


def test_deltas_of_a_finished_attempt_are_dropped_and_those_of_the_next_are_forwarded(
    make_relay, redis: Redis, sessions: Sessions, user_id: int
) -> None:
    with make_relay().subscribe(user_id) as subscription:
        wait_until(lambda: listeners(redis, user_id) == 1)
        ended = finish_prompt(sessions, user_id)
        late, following = (Announcement(None, ended.prompt_id, attempt) for attempt in (0, 1))
        for announcement in (ended, late, following):
            Announcer(redis).announce((user_id, announcement))
        assert [next_announced(subscription), subscription.get(5)] == [ended, following]


def test_a_channel_without_subscriptions_is_unsubscribed(make_relay, redis: Redis, user_id: int) -> None:
    relay = make_relay(check_seconds=0.2)
    with relay.subscribe(user_id):
        wait_until(lambda: listeners(redis, user_id) == 1)
    wait_until(lambda: listeners(redis, user_id) == 0)
    with relay.subscribe(user_id):
        wait_until(lambda: listeners(redis, user_id) == 1)


def test_a_shutdown_wakes_all_present_and_later_subscriptions(make_relay, user_id: int) -> None:
    relay = make_relay()
    with relay.subscribe(user_id) as subscription:
        threading.Timer(0.1, relay.shut_down).start()
        assert subscription.get(10) is None
        assert subscription.going_down
    with relay.subscribe(user_id) as late:
        assert late.get(10) is None
        assert late.going_down


def test_polling_continues_if_a_channel_cannot_be_unsubscribed(
    make_relay, redis: Redis, sessions: Sessions, user_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the listener reconnects, gevent raises an error of its own here."""
    tried = threading.Event()

    def raise_error(*_: object) -> None:
        tried.set()
        raise AssertionError("This socket is already used by another greenlet")

    monkeypatch.setattr(PubSub, "unsubscribe", raise_error)
    relay = make_relay(check_seconds=0.1)
    with relay.subscribe(user_id + 1):
        wait_until(lambda: listeners(redis, user_id + 1) == 1)
    assert tried.wait(10)
    with relay.subscribe(user_id) as subscription:
        seq = finish_prompt(sessions, user_id).seq
        assert subscription.get(10).seq == seq


def test_requests_never_get_the_connection_of_the_subscription(services: Services) -> None:
    """Several greenlets use that connection, so a request could read a reply that another greenlet waits for."""
    requests = {id(client.connection_pool) for client in (services.announcer._redis, services.queue._redis)}
    assert id(services.relay._redis.connection_pool) not in requests
