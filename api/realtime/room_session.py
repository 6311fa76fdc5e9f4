"""One socket in its user's room.

A socket is a cursor over the user's feed. An announcement with the next number is passed on; after a higher one, the
session reads the feed. So joining with `since`, catching up after a gap and following live are the same thing.
"""

import _thread
import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from pydantic_core import from_json
from simple_websocket import ConnectionClosed
from sqlalchemy import Engine

from api.auth.principal import Principal
from api.auth.token_cache import is_alive
from api.intake.user_slots import UserSlots
from api.realtime.fair_semaphore import FairSemaphore
from api.realtime.handshake import closing_on_error
from api.realtime.relay import Relay
from api.realtime.subscription import MAX_QUEUED_ANNOUNCEMENTS, MAX_QUEUED_CHARACTERS
from api.realtime.websocket import WebSocket
from shared import timestamps
from shared.messaging import announcements
from shared.messaging.announcements import Announcement
from shared.prompts import feed
from shared.telemetry import metrics

UNAUTHENTICATED = 4401
SERVICE_RESTART, TRY_AGAIN_LATER = 1012, 1013


class SocketSession:
    """Sends a socket the events of its room until the socket or the token ends.

    The relay's thread sends whatever can be sent at once. Everything else waits in the backlog: after a gap, for which
    the feed must be read, or when the client is slow. A thread is started to send the backlog, and then ends.
    """

    __slots__ = (
        "_backlog",
        "_closing",
        "_cursor",
        "_db_slots",
        "_engine",
        "_everything",
        "_lock",
        "_principal",
        "_queued",
        "_relay",
        "_slots",
        "_socket",
        "until",
    )

    def __init__(
        self,
        relay: Relay,
        engine: Engine,
        db_slots: FairSemaphore,
        slots: UserSlots,
        socket: WebSocket,
        principal: Principal,
    ) -> None:
        self.until = principal.expires_at
        self._relay = relay
        self._engine = engine
        self._db_slots = db_slots
        self._slots = slots
        self._socket = socket
        self._principal = principal
        self._everything = False
        self._cursor = 0
        self._lock = threading.Lock()
        self._backlog: deque[Announcement] | None = deque()  #: None while no thread sends it
        self._queued = 0  #: the characters in the backlog
        self._closing: tuple[int, str] | None = None

    def enter(self, since: int | None, *, everything: bool = False) -> tuple[int, bool]:
        """Enter the room. Returns its newest number, and whether the feed still has all events after `since`.

        With `everything`, the socket also gets prompts without `websocket`, and deletions.

        Raises:
            UserLimitError: the user has too many sockets.
        """
        self._everything = everything
        self._slots.acquire(self._principal.id)
        self._relay.enter(self._principal.id, self)
        metrics.sockets.inc()
        try:
            with self._engine.connect() as connection:
                newest, is_kept = feed.position(connection, self._principal.id, since)
        except BaseException:
            self.on_closed()
            raise
        self._cursor = newest if since is None or not is_kept else since
        return newest, is_kept

    def greet(self, newest: int, is_kept: bool) -> None:
        """Send the greeting and the missed events, then leave the socket to its reading thread and the relay."""
        message = f"Connected to WebSocket room '{self._principal.username}'."
        try:
            self._send({"type": "connected", "message": message, "seq": newest})
            if not is_kept:
                self._send({"type": "reset", "seq": newest})
            elif self._cursor < newest:
                self._catch_up()
            self._send_backlog()
        except BaseException:
            self.on_closed()
            raise
        self._socket.listen(self)

    def put(self, announcement: Announcement) -> None:
        """Pass an announcement on, or add it to the backlog. Called by the relay; never blocks."""
        with self._lock:
            if self._closing:
                return
            if self._backlog is None:
                with contextlib.suppress(ConnectionClosed):
                    if not self._pass_on(announcement, self._socket.post):
                        self._start_thread(announcement)
            elif len(self._backlog) < MAX_QUEUED_ANNOUNCEMENTS and self._queued < MAX_QUEUED_CHARACTERS:
                self._backlog.append(announcement)
                self._queued += _length(announcement)
            else:
                self._closing = (TRY_AGAIN_LATER, "You fell behind; connect again with since.")

    def go_down(self) -> None:
        """Close the socket because this process stops. Called by the relay; never blocks."""
        with self._lock:
            self._closing = self._closing or (
                SERVICE_RESTART,
                "The server is going down; connect again with since.",
            )
            if self._backlog is None:
                self._start_thread()

    def on_message(self, data: str | bytes) -> None:
        """Answer a message from the client. It changes nothing on the server."""
        if not data.strip():
            return
        try:
            answer = _answer_to(from_json(data, allow_inf_nan=False))
            json.dumps(answer, allow_nan=False)  # a number may be too large for JSON
        except ValueError:
            answer = _error("Invalid JSON format")
        self._send(answer | {"timestamp": timestamps.now()})

    def on_expired(self) -> None:
        refuse(self._socket, UNAUTHENTICATED, "The token has expired.")

    def on_closed(self) -> None:
        self._relay.leave(self._principal.id, self)
        self._slots.release(self._principal.id)
        metrics.sockets.dec()

    def _start_thread(self, *backlog: Announcement) -> None:
        self._backlog, self._queued = deque(backlog), sum(map(_length, backlog))
        _thread.start_new_thread(self._run_thread, ())

    def _run_thread(self) -> None:
        with closing_on_error(self._socket):
            self._send_backlog()

    def _send_backlog(self) -> None:
        while (announcement := self._next()) is not None:
            if self._pass_on(announcement, self._socket.send):
                continue
            if announcement.seq is not None:
                self._move_to(announcement.seq)
            elif not self._is_alive():
                refuse(self._socket, UNAUTHENTICATED, "The token has been revoked.")
        if self._closing:
            self._socket.close(*self._closing)

    def _next(self) -> Announcement | None:
        with self._lock:
            if self._closing:
                return None
            if self._backlog:
                announcement = self._backlog.popleft()
                self._queued -= _length(announcement)
                return announcement
            self._backlog = None
            return None

    def _pass_on(self, announcement: Announcement, send: Callable[[str], bool]) -> bool:
        """Send an announcement if it is the next one. Returns False if the feed must be read, or `send` failed."""
        seq, message = announcement.seq, announcement.message
        if seq is None:
            if announcement.is_login_ended or not (message is None or send(message)):
                return False
            if message is not None:
                (metrics.deltas_sent if announcement.prompt_id is not None else metrics.progress_sent).inc()
            return True
        if seq <= self._cursor:
            return not announcement.restored
        if seq > self._cursor + 1 or announcement.prompt_id is None or (message is None and self._everything):
            return False
        if not (message is None or send(message)):
            return False
        self._cursor = seq
        if message is not None:
            metrics.finished_sent.inc()
        return True

    def _move_to(self, seq: int) -> None:
        """Move the cursor to this number: forwards by reading the feed, backwards after a restore of the database."""
        if seq < self._cursor:
            self._reset(seq)
            return
        self._catch_up()
        if self._cursor < seq:  # the feed was emptied, or the number is wrong
            with self._db_slots, self._engine.connect() as connection:
                newest, is_kept = feed.position(connection, self._principal.id, self._cursor)
            if not is_kept:
                self._reset(newest)

    def _catch_up(self) -> None:
        """Send the feed's events after the cursor."""
        more = True
        while more:
            with self._db_slots, self._engine.connect() as connection:
                replay = feed.read(connection, self._principal.id, self._cursor, everything=self._everything)
            if replay.begins_after > self._cursor:
                self._reset(replay.begins_after)
            for each in replay.events:
                self._send(announcements.event(each))
                metrics.replays_sent.inc()
            self._cursor, more = replay.reached, replay.more

    def _reset(self, seq: int) -> None:
        """Go on from this number. What happened before it is not in the feed any more."""
        self._cursor = seq
        self._send({"type": "reset", "seq": seq})

    def _is_alive(self) -> bool:
        with self._db_slots:
            return is_alive(self._engine, self._principal)

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.send(announcements.to_json(message))


def refuse(socket: WebSocket, code: int, message: str) -> None:
    """Send an error, and close the socket with this code."""
    socket.send(announcements.to_json({"error": message}))
    socket.close(code, message[:120])


def _length(announcement: Announcement) -> int:
    return len(announcement.message or "")


def _answer_to(message: Any) -> dict[str, Any]:
    kind = message.get("type") if isinstance(message, dict) else None
    if kind is None:
        return _error("Missing 'type' field")
    return {"type": "pong"} if kind == "ping" else {"type": "echo", "data": message}


def _error(message: str) -> dict[str, Any]:
    return {"type": "error", "message": message}
