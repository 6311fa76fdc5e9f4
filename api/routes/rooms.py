"""The WebSocket: a user's finished prompts, as they finish, and those that were missed.

A socket is a cursor over its user's feed. An announcement with the next number is passed on; at any other that is
higher, the socket reads the feed. Joining with `since`, catching up and going on live are so one and the same.
"""

import _thread
import contextlib
import json
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from flask import Blueprint, request
from pydantic_core import from_json
from simple_websocket import ConnectionClosed
from werkzeug.exceptions import Forbidden

from api.auth import tokens
from api.auth.token_cache import Principal, is_alive
from api.realtime.handshake import HardenedSock, ending
from api.realtime.relay import MAX_QUEUED_ANNOUNCEMENTS
from api.realtime.websocket import WebSocket
from api.services import Services, services
from shared import timestamps
from shared.accounts import users
from shared.errors import InvalidTokenError
from shared.messaging import announcements
from shared.messaging.announcements import Announcement
from shared.prompts import feed
from shared.telemetry import metrics

bp = Blueprint("stream", __name__)
sock = HardenedSock(subprotocols=["bearer"])

NO_USERNAME, NO_SUCH_PATH, BAD_SINCE, UNAUTHENTICATED, NOT_YOURS = 4000, 4001, 4400, 4401, 4403
GOING_DOWN, TRY_AGAIN_LATER = 1012, 1013

_NO_USERNAME_MESSAGE = "Missing 'username' parameter. Use ws://host/ws/prompts/<username>/"


class RefusedError(Exception):
    """The socket is told why, and closed with a code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@bp.before_request
def _check_origin() -> None:
    """A browser says which page opens the socket; only this host's own and ALLOWED_ORIGINS may."""
    origin = request.headers.get("Origin")
    allowed = services().settings.allowed_origins
    if origin is None or "*" in allowed or origin in allowed or origin.partition("://")[2] == request.host:
        return
    raise Forbidden("This origin may not open sockets here; add it to ALLOWED_ORIGINS.")


@sock.route("/ws/prompts/<username>/", bp=bp)
def room(socket: WebSocket, username: str) -> None:
    """A user's room."""
    try:
        with services().db_slots:
            follower = SocketSession(socket, services(), _admit(username))
            newest, kept = follower.enter(_since())
    except RefusedError as refused:
        _refuse(socket, refused.code, str(refused))
        return
    follower.greet(newest, kept)


@sock.route("/ws/prompts/", bp=bp)
def no_username(socket: WebSocket) -> None:
    _refuse(socket, NO_USERNAME, _NO_USERNAME_MESSAGE)


@sock.route("/ws/", bp=bp)
def no_room(socket: WebSocket) -> None:
    _refuse(socket, NO_SUCH_PATH, f"There is no WebSocket at {request.path}.")


@sock.route("/ws/<path:rest>", bp=bp)
def no_such_path(socket: WebSocket, rest: str) -> None:
    _refuse(socket, NO_SUCH_PATH, f"There is no WebSocket at /ws/{rest}.")


class SocketSession:
    """Sends a socket what happens in its room, until one of them ends.

    The relay's thread itself sends what can be sent at once. Anything else (a gap, for which the feed must be read; a
    client that does not keep up) waits in a backlog, for a thread that is made to work through it and then ends.
    """

    __slots__ = ("_backlog", "_caller", "_cursor", "_leaving", "_services", "_socket", "_turn", "until")

    def __init__(self, socket: WebSocket, services: Services, caller: Principal) -> None:
        self.until = caller.expires_at
        self._socket = socket
        self._services = services
        self._caller = caller
        self._cursor = 0
        self._turn = threading.Lock()
        self._backlog: deque[Announcement] | None = deque()  #: None if nobody is there to work through it
        self._leaving: tuple[int, str] | None = None

    def enter(self, since: int | None) -> tuple[int, bool]:
        """Enters the room. Returns its newest number, and whether all after the given one can still be told."""
        self._services.relay.enter(self._caller.id, self)
        metrics.sockets.inc()
        try:
            with self._services.autocommit_engine.connect() as connection:
                newest, kept = feed.position(connection, self._caller.id, since)
        except BaseException:
            self.on_closed()
            raise
        self._cursor = newest if since is None or not kept else since
        return newest, kept

    def greet(self, newest: int, kept: bool) -> None:
        """Says hello, and tells what was missed. From then on all goes by itself."""
        message = f"Connected to WebSocket room '{self._caller.username}'."
        try:
            self._send({"type": "connected", "message": message, "seq": newest})
            if not kept:
                self._send({"type": "reset", "seq": newest})
            elif self._cursor < newest:
                self._catch_up()
            self._work_off()
        except BaseException:
            self.on_closed()
            raise
        self._socket.listen(self)

    def put(self, announcement: Announcement) -> None:
        with self._turn:
            if self._leaving:
                return
            if self._backlog is None:
                with contextlib.suppress(ConnectionClosed):
                    if not self._tell(announcement, self._socket.post):
                        self._start_work(announcement)
            elif len(self._backlog) < MAX_QUEUED_ANNOUNCEMENTS:
                self._backlog.append(announcement)
            else:
                self._leaving = (TRY_AGAIN_LATER, "You fell behind; connect again with since.")

    def go_down(self) -> None:
        with self._turn:
            self._leaving = self._leaving or (GOING_DOWN, "The server is going down; connect again with since.")
            if self._backlog is None:
                self._start_work()

    def on_message(self, data: str | bytes) -> None:
        """Answers a message from the client. It changes nothing on the server."""
        if not data.strip():
            return
        try:
            answer = _answer_to(from_json(data, allow_inf_nan=False))
            json.dumps(answer, allow_nan=False)  # a number may be too large for one
        except ValueError:
            answer = _error("Invalid JSON format")
        self._send(answer | {"timestamp": timestamps.now()})

    def on_expired(self) -> None:
        _refuse(self._socket, UNAUTHENTICATED, "The token has expired.")

    def on_closed(self) -> None:
        self._services.relay.leave(self._caller.id, self)
        metrics.sockets.dec()

    def _start_work(self, *announcements: Announcement) -> None:
        self._backlog = deque(announcements)
        _thread.start_new_thread(self._work, ())

    def _work(self) -> None:
        with ending(self._socket):
            self._work_off()

    def _work_off(self) -> None:
        while (announcement := self._next()) is not None:
            if self._tell(announcement, self._socket.send):
                continue
            if announcement.seq is not None:
                self._catch_up()
            elif not self._is_alive():
                _refuse(self._socket, UNAUTHENTICATED, "The token has been revoked.")
        if self._leaving:
            self._socket.close(*self._leaving)

    def _next(self) -> Announcement | None:
        with self._turn:
            if self._leaving:
                return None
            if self._backlog:
                return self._backlog.popleft()
            self._backlog = None
            return None

    def _tell(self, announcement: Announcement, send: Callable[[str], bool]) -> bool:
        """Passes on what is next. Returns whether that is all, and `send` did it."""
        seq, message = announcement.seq, announcement.message
        if seq is None:
            if announcement.prompt_id is None or not (message is None or send(message)):
                return False
            if message is not None:
                metrics.deltas_sent.add()
            return True
        if seq <= self._cursor:
            return True
        if seq > self._cursor + 1 or announcement.prompt_id is None or not (message is None or send(message)):
            return False
        self._cursor = seq
        if message is not None:
            metrics.finished_sent.add()
        return True

    def _catch_up(self) -> None:
        """Sends what the feed has after the cursor."""
        more = True
        while more:
            with self._services.db_slots, self._services.autocommit_engine.connect() as connection:
                replay = feed.read(connection, self._caller.id, self._cursor)
            for ended in replay.finished:
                self._send(announcements.finished_event(ended))
                metrics.replays_sent.add()
            self._cursor, more = replay.reached, replay.more

    def _is_alive(self) -> bool:
        with self._services.db_slots:
            return is_alive(self._services.autocommit_engine, self._caller)

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.send(announcements.to_json(message))


def _answer_to(message: Any) -> dict[str, Any]:
    kind = message.get("type") if isinstance(message, dict) else None
    if kind is None:
        return _error("Missing 'type' field")
    return {"type": "pong"} if kind == "ping" else {"type": "echo", "data": message}


def _error(message: str) -> dict[str, Any]:
    return {"type": "error", "message": message}


def _admit(username: str) -> Principal:
    """Whose room it is, if whoever connects may join it. Raises RefusedError if not."""
    if services().settings.ws_room_auth == "open":
        with services().sessions() as session:
            user = users.find(session, username) if "\0" not in username else None
        if user is None:
            raise RefusedError(NOT_YOURS, f"There is no room '{username}'.")
        return Principal(user.id, user.username, family=None, expires_at=float("inf"))
    try:
        caller = tokens.authenticate_token(_token())
    except InvalidTokenError as error:
        raise RefusedError(UNAUTHENTICATED, str(error)) from error
    if caller.username != username:
        raise RefusedError(NOT_YOURS, "This room is another user's.")
    return caller


def _token() -> str:
    """The token in the Authorization header or, from a browser, in the subprotocols `bearer, <token>`."""
    header = request.headers.get("Authorization")
    offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if header is None and len(offered) == 2 and offered[0] == "bearer":
        return offered[1]
    return tokens.bearer(header)


def _since() -> int | None:
    given = request.args.get("since")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and len(given) < 19):
        raise RefusedError(BAD_SINCE, "'since' must be the seq of an event.")
    return int(given)


def _refuse(socket: WebSocket, code: int, message: str) -> None:
    socket.send(announcements.to_json({"error": message}))
    socket.close(code, message[:120])
