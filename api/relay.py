"""From Redis to whoever waits in this process: one Redis connection, any number of sockets and waiting requests.

Pub/sub only says "look now". It may lose announcements: when Redis is away, when a connection drops (redis-py
reconnects silently; the only sign is that its `subscribe` confirmations come again), when a worker dies between commit
and publish. So the relay also asks Postgres for the newest numbers of its users, in one query: of a user whose
subscription has just been confirmed, at once; of all, every `check_seconds`, and every second while Redis is away.
A subscriber that sees its number jump reads the feed.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

import structlog
from redis import Redis, RedisError
from redis.client import PubSub
from sqlalchemy.exc import SQLAlchemyError

from shared import events, feed
from shared.database import Sessions
from shared.events import Announcement

log = structlog.get_logger(__name__)

#: How far a subscriber may fall behind before it is dropped, in announcements.
QUEUE_LENGTH = 256

_CHECK_SECONDS_WITHOUT_REDIS = 1.0
_RECONNECT_SECONDS = 0.5
_ENDED_KEPT = 256  # a room
_CONTROL_CHANNEL = "promptwire:relay"  # always subscribed, so that the connection exists


class Subscription:
    """A bounded queue of one user's announcements."""

    def __init__(self, limit: int) -> None:
        self._queue: SimpleQueue[Announcement | None] = SimpleQueue()
        self._limit = limit
        self.overflowed = False
        self.going_down = False
        self.closed = False

    def get(self, timeout: float | None = None) -> Announcement | None:
        """The next announcement; None after `timeout` seconds without one, or once closed."""
        if self.closed:
            return None
        try:
            return self._queue.get(timeout=timeout if timeout is None else max(0.0, timeout))
        except Empty:
            return None

    def put(self, announcement: Announcement) -> None:
        if self._queue.qsize() >= self._limit:
            self.overflowed = True
            self.close()
        else:
            self._queue.put(announcement)

    def close(self) -> None:
        """Wakes up whoever waits, to leave."""
        self.closed = True
        self._queue.put(None)


@dataclass
class _Room:
    """The subscriptions of one user in this process, the newest number they were told, and what has lately ended."""

    subscriptions: set[Subscription] = field(default_factory=set)
    seq: int = 0
    ended: OrderedDict[int, int] = field(default_factory=OrderedDict)

    def admits(self, announcement: Announcement) -> bool:
        """Takes note of an announcement. Refuses a delta of an attempt that has ended: nobody is to see more of it."""
        prompt_id, attempt = announcement.prompt_id, announcement.attempt
        if announcement.seq is None:
            return prompt_id is None or self.ended.get(prompt_id, -1) < attempt
        self.seq = max(self.seq, announcement.seq)
        if prompt_id is not None:
            self.ended[prompt_id] = attempt
            if len(self.ended) > _ENDED_KEPT:
                self.ended.popitem(last=False)
        return True


class Relay:
    """Hands a user's announcements to their subscriptions."""

    def __init__(
        self, redis: Redis, sessions: Sessions, *, check_seconds: float, queue_length: int = QUEUE_LENGTH
    ) -> None:
        self._redis = redis
        self._sessions = sessions
        self._check_seconds = check_seconds
        self._queue_length = queue_length
        self._rooms: dict[int, _Room] = {}
        self._lock = threading.Lock()
        self._pubsub: PubSub | None = None
        self._unchecked: set[int] = set()
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Begins to listen and to check, in two threads (greenlets, under gevent)."""
        threading.Thread(target=self._listen, name="relay-listen", daemon=True).start()
        threading.Thread(target=self._check, name="relay-check", daemon=True).start()

    @contextmanager
    def subscribe(self, user_id: int) -> Iterator[Subscription]:
        """Gets the user's announcements from here on.

        Subscribe first, then read the state: what happens in between is announced.
        """
        subscription = Subscription(self._queue_length)
        with self._lock:
            room = self._rooms.get(user_id)
            is_new = room is None
            room = self._rooms.setdefault(user_id, _Room())
            room.subscriptions.add(subscription)
            subscription.going_down = self._stopping.is_set()
        if subscription.going_down:
            subscription.close()
        if is_new:
            self._join([user_id])
        try:
            yield subscription
        finally:
            with self._lock:
                room.subscriptions.discard(subscription)

    def shut_down(self) -> None:
        """Closes every subscription, and each new one, marked `going_down`."""
        self._stopping.set()
        self._wake.set()
        with self._lock:
            open_ones = [s for room in self._rooms.values() for s in room.subscriptions]
        for subscription in open_ones:
            subscription.going_down = True
            subscription.close()

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._redis.pubsub() as pubsub:
                    pubsub.subscribe(_CONTROL_CHANNEL)
                    self._pubsub = pubsub
                    with self._lock:
                        users = list(self._rooms)
                    self._join(users)
                    while not self._stopping.is_set():
                        self._receive(pubsub.get_message(timeout=1.0))
            except (RedisError, OSError) as error:
                if not self._stopping.is_set():
                    log.warning("redis away, sockets are served from postgres", error=type(error).__name__)
            except Exception:
                log.exception("relay failed, starts again")
            self._pubsub = None
            self._wake.set()
            self._stopping.wait(_RECONNECT_SECONDS)

    def _join(self, user_ids: Collection[int]) -> None:
        """Subscribes to these users' channels; if Redis is away, reconnecting will."""
        pubsub = self._pubsub
        if pubsub is None or not user_ids:
            return
        try:
            pubsub.subscribe(*map(events.channel, user_ids))
        except (RedisError, OSError):
            log.debug("not subscribed now", users=len(user_ids))

    def _receive(self, message: dict[str, str] | None) -> None:
        if message is None or message["channel"] == _CONTROL_CHANNEL:
            return
        user_id = events.user_of(message["channel"])
        if message["type"] == "subscribe":
            self._unchecked.add(user_id)
            self._wake.set()
        elif message["type"] == "message":
            try:
                self._dispatch(user_id, Announcement.decode(message["data"]))
            except (ValueError, KeyError, TypeError):
                log.warning("announcement refused: malformed", user_id=user_id)

    def _dispatch(self, user_id: int, announcement: Announcement) -> None:
        with self._lock:
            room = self._rooms.get(user_id)
            if room is None or not room.admits(announcement):
                return
            subscriptions = list(room.subscriptions)
        for subscription in subscriptions:
            subscription.put(announcement)

    def _check(self) -> None:
        last_full = 0.0
        while not self._stopping.is_set():
            period = self._check_seconds if self._pubsub else min(self._check_seconds, _CHECK_SECONDS_WITHOUT_REDIS)
            self._wake.wait(max(0.0, last_full + period - time.monotonic()))
            self._wake.clear()
            is_full = time.monotonic() >= last_full + period
            unchecked, self._unchecked = self._unchecked, set()
            if is_full:
                last_full = time.monotonic()
                self._leave_empty_rooms()
                unchecked = set(self._rooms)
            try:
                self._announce_newest(unchecked)
            except SQLAlchemyError as error:
                log.warning("feeds not checked", error=type(error).__name__)
            except Exception:
                log.exception("feeds not checked")

    def _announce_newest(self, user_ids: Collection[int]) -> None:
        if not user_ids:
            return
        with self._sessions() as session:
            newest = feed.newest(session, user_ids)
        for user_id, seq in newest.items():
            room = self._rooms.get(user_id)
            if room is not None and seq > room.seq:
                self._dispatch(user_id, Announcement(seq))

    def _leave_empty_rooms(self) -> None:
        """Unsubscribes where nobody is left. Not sooner, because whoever left often comes back."""
        with self._lock:
            empty = [user_id for user_id, room in self._rooms.items() if not room.subscriptions]
            for user_id in empty:
                del self._rooms[user_id]
        pubsub = self._pubsub
        if pubsub is None or not empty:
            return
        try:
            pubsub.unsubscribe(*map(events.channel, empty))
        except (RedisError, OSError):
            log.debug("not unsubscribed now", users=len(empty))
