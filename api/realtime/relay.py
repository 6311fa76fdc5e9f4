"""From Redis to the subscribers in this process: one Redis connection, any number of sockets and waiting requests.

Pub/sub may lose announcements: when Redis is unavailable, when a connection drops (redis-py reconnects silently; the
only sign is that its `subscribe` confirmations come again), when a worker dies between commit and publish. So the relay
also asks Postgres which users' newest numbers differ from those it knows: about a user whose subscription has just
been confirmed, at once; about all, twice in `check_seconds`, and every second while Redis is unavailable. A subscriber
that sees a gap in the numbers reads the feed. `EndedLogins` asks which logins and API keys have ended.

If the number in Postgres is lower than the known one, an older state of the database was restored, or the known number
was wrong. The room is then reset to it, and sockets whose cursors are higher are sent a `reset`.
"""

import math
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
from redis import Redis, RedisError
from redis.client import PubSub
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.auth.token_cache import TokenCache
from api.realtime.ended_logins import EndedLogins
from api.realtime.room import Room
from api.realtime.subscription import MAX_QUEUED_ANNOUNCEMENTS, Subscriber, Subscription
from api.server.time_slice import TimeSlice
from shared.db.engine import cause
from shared.messaging import announcements
from shared.messaging.announcements import Announcement
from shared.messaging.channels import Channels
from shared.prompts import feed
from shared.telemetry import metrics, tracing

log = structlog.get_logger(__name__)

_CHECK_SECONDS_WITHOUT_REDIS = 1.0
_RECONNECT_SECONDS = 0.5
#: For how long confirmations are collected, to be checked together.
_COLLECT_SECONDS = 0.02
#: For how long announcements are passed on at most while requests wait. They wait for as long as the requests do: with
#: less, a busy process would accept prompts faster than it tells of their answers.
MAX_TIME_SLICE_SECONDS = 0.05
#: How many users one query checks; with more, all other requests would wait for it.
MAX_CHECKED_USERS = 1_000


class Relay:
    """Passes each user's announcements to the user's subscribers."""

    def __init__(
        self,
        redis: Redis,
        autocommit_engine: Engine,
        token_cache: TokenCache,
        *,
        check_seconds: float,
        queue_length: int = MAX_QUEUED_ANNOUNCEMENTS,
    ) -> None:
        self._redis = redis
        self._channels = Channels(redis)
        self._autocommit_engine = autocommit_engine
        self._token_cache = token_cache
        self._ended_logins = EndedLogins(autocommit_engine, token_cache, self._announce_ended_login)
        self._check_seconds = check_seconds
        self._queue_length = queue_length
        self._rooms: dict[int, Room] = {}
        self._lock = threading.Lock()
        #: Held while an announcement is passed to a room: other greenlets run meanwhile, and the next announcement must
        #: not overtake it.
        self._dispatching = threading.Lock()
        self._time_slice = TimeSlice(MAX_TIME_SLICE_SECONDS)
        self._pubsub: PubSub | None = None
        self._was_connected = False
        self._unchecked: set[int] = set()
        #: The newest numbers, by user, that the last check found and that had not been announced then.
        self._missing: dict[int, int] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()

    def start(self) -> None:
        """Start listening and checking, in threads (greenlets, under gevent)."""
        threading.Thread(target=self._listen, name="relay-listen", daemon=True).start()
        threading.Thread(target=self._check, name="relay-check", daemon=True).start()
        self._ended_logins.start()

    @contextmanager
    def subscribe(self, user_id: int) -> Iterator[Subscription]:
        """Receive the user's announcements from now on.

        Subscribe first, then read the state: what happens in between is announced.
        """
        subscription = Subscription(self._queue_length)
        self.enter(user_id, subscription)
        try:
            yield subscription
        finally:
            self.leave(user_id, subscription)

    def enter(self, user_id: int, subscriber: Subscriber) -> None:
        """Add a subscriber to the user's room, until `leave`."""
        with self._lock:
            is_new = user_id not in self._rooms
            room = self._rooms.setdefault(user_id, Room())
            room.subscribers.add(subscriber)
            going_down = self._stopping.is_set()
        if going_down:
            subscriber.go_down()
        if self._ended_logins.are_recent_of(user_id):  # it may be the caller's, who was authenticated before it ended
            subscriber.put(announcements.LOGIN_ENDED)
        if is_new:
            self._join([user_id])

    def leave(self, user_id: int, subscriber: Subscriber) -> None:
        with self._lock:
            room = self._rooms.get(user_id)
            if room is not None:
                room.subscribers.discard(subscriber)

    def shut_down(self) -> None:
        """Tell every subscriber, and each new one, that the process stops."""
        self._stopping.set()
        self._ended_logins.stop()
        self._wake.set()
        with self._lock:
            subscribers = [subscriber for room in self._rooms.values() for subscriber in room.subscribers]
        for subscriber in subscribers:
            subscriber.go_down()
            time.sleep(0)  # otherwise all threads that close sockets would start at once

    def _listen(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._redis.pubsub() as pubsub:
                    pubsub.subscribe(self._channels.logins)
                    self._pubsub = pubsub
                    with self._lock:
                        user_ids = list(self._rooms)
                    self._join(user_ids)
                    self._receive_all(pubsub)
            except (RedisError, OSError) as error:
                if not self._stopping.is_set():
                    log.warning("redis unavailable, sockets are served from postgres", error=type(error).__name__)
            except Exception:
                log.exception("relay failed, restarts")
            self._pubsub = None
            self._wake.set()
            self._stopping.wait(_RECONNECT_SECONDS)

    def _receive_all(self, pubsub: PubSub) -> None:
        while not self._stopping.is_set():
            self._receive(pubsub.get_message(timeout=1.0))
            self._time_slice.yield_if_over()

    def _join(self, user_ids: Collection[int]) -> None:
        """Subscribe to these users' channels. If Redis is unavailable, that happens when it reconnects."""
        pubsub = self._pubsub
        if pubsub is None or not user_ids:
            return
        try:
            pubsub.subscribe(*map(self._channels.of_user, user_ids))
        except Exception:  # also gevent's own error, if the listener is reconnecting at this moment
            log.debug("channels not subscribed", users=len(user_ids))

    def _receive(self, message: dict[str, str] | None) -> None:
        if message is None:
            return
        if message["channel"] == self._channels.logins:
            self._receive_login(message)
            return
        user_id = self._channels.user_id(message["channel"])
        if message["type"] == "subscribe":
            self._unchecked.add(user_id)
            self._wake.set()
        elif message["type"] == "message":
            try:
                self._dispatch(user_id, Announcement.decode(message["data"]))
            except ValueError:
                log.warning("announcement refused: malformed", user_id=user_id)

    def _receive_login(self, message: dict[str, str]) -> None:
        if message["type"] == "subscribe":  # the first confirmation on each new connection
            if self._was_connected:
                metrics.relay_reconnects.inc()
            self._was_connected = True
        elif message["type"] == "message":
            user_id = announcements.parse_user_id(message["data"])
            if user_id is None:
                log.warning("message about logins refused: malformed")
                return
            self._token_cache.forget({user_id})
            self._announce_ended_login(user_id)

    def _announce_ended_login(self, user_id: int) -> None:
        self._dispatch(user_id, announcements.LOGIN_ENDED)

    def _dispatch(self, user_id: int, announcement: Announcement) -> None:
        with self._dispatching:
            with self._lock:
                room = self._rooms.get(user_id)
                if room is None or not room.admits(announcement):
                    return
                subscribers = list(room.subscribers)
            self._send_to(subscribers, announcement)

    def _send_to(self, subscribers: Sequence[Subscriber], announcement: Announcement) -> None:
        with tracing.spans("push", announcement.traceparent, subscribers=len(subscribers)):
            for subscriber in subscribers:
                try:
                    subscriber.put(announcement)
                except Exception:
                    log.exception("subscriber failed, announcement not delivered")
                self._time_slice.yield_if_over()

    def _check(self) -> None:
        last_full = -math.inf  # the first check is immediate, also soon after the machine's boot
        while not self._stopping.is_set():
            # What one check misses the next one announces, so two of them take the time that settings allow.
            period = self._check_seconds / 2 if self._pubsub else min(self._check_seconds, _CHECK_SECONDS_WITHOUT_REDIS)
            self._wake.wait(max(0.0, last_full + period - time.monotonic()))
            self._stopping.wait(_COLLECT_SECONDS)
            self._wake.clear()
            unchecked, self._unchecked = self._unchecked, set()
            self._try(self._announce_newest, unchecked)
            if time.monotonic() >= last_full + period:
                last_full = time.monotonic()
                self._try(self._leave_empty_rooms)
                self._try(self._announce_missing)

    def _try(self, check: Callable[..., None], *args: Any) -> None:
        try:
            check(*args)
        except SQLAlchemyError as error:
            log.warning("postgres check failed", error=cause(error))
        except Exception:
            log.exception("postgres check failed")

    def _announce_newest(self, user_ids: Collection[int]) -> None:
        """Announce the newest number of each of these users, if it is not the one that the room knows."""
        self._announce(self._find_newer(user_ids))

    def _announce_missing(self) -> None:
        """Announce the newest numbers that have not come by themselves since the check before, if Redis is available.

        Some are always on their way, and to have a socket read its feed costs much more than to pass an event on.
        """
        earlier, self._missing = self._missing, self._find_newer(set(self._rooms))
        if self._pubsub is None:
            self._announce(self._missing)
            return
        # What is missing no more has come, or was reset: an older state of the database may have been restored.
        still = earlier.keys() & self._missing.keys()
        self._announce({user_id: min(earlier[user_id], self._missing[user_id]) for user_id in still})

    def _announce(self, newest: Mapping[int, int]) -> None:
        """Announce these numbers, by user, to the rooms that have not reached them."""
        for user_id, seq in newest.items():
            room = self._rooms.get(user_id)
            if room is not None and room.seq < seq:
                self._dispatch(user_id, Announcement(seq))

    def _find_newer(self, user_ids: Collection[int]) -> dict[int, int]:
        """Those of the users' newest numbers that are higher than their rooms know. Rooms that know more are reset."""
        newer: dict[int, int] = {}
        checked = list(user_ids)
        for start in range(0, len(checked), MAX_CHECKED_USERS):
            some = checked[start : start + MAX_CHECKED_USERS]
            known = {user_id: room.seq for user_id in some if (room := self._rooms.get(user_id)) is not None}
            with self._autocommit_engine.connect() as connection:
                newest = feed.changed(connection, known)
            for user_id, seq in newest.items():
                if seq > known[user_id]:
                    newer[user_id] = seq
                else:
                    self._reset_room(user_id, seq)
        return newer

    def _reset_room(self, user_id: int, seq: int) -> None:
        """Set a room back to this number, and notify its subscribers."""
        with self._lock:
            room = self._rooms.get(user_id)
            if room is None:
                return
            room.reset(seq)
            subscribers = list(room.subscribers)
        log.warning("feed restored to an older state, sockets reset", user_id=user_id, seq=seq)
        self._send_to(subscribers, Announcement(seq, restored=True))

    def _leave_empty_rooms(self) -> None:
        """Unsubscribe from rooms without subscribers. Not sooner, because clients that leave often come back."""
        with self._lock:
            empty = [user_id for user_id, room in self._rooms.items() if not room.subscribers]
            for user_id in empty:
                del self._rooms[user_id]
        pubsub = self._pubsub
        if pubsub is None or not empty:
            return
        try:
            pubsub.unsubscribe(*map(self._channels.of_user, empty))
        except Exception:  # as above
            log.debug("channels not unsubscribed", users=len(empty))
