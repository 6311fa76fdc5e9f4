"""The WebSocket: a user's finished prompts, as they finish, and those that were missed.

A socket is a cursor over its user's feed. An announcement with the next number is passed on; at any other that is
higher, the socket reads the feed. Joining with `since`, catching up and going on live are so one and the same.
"""

import time
from typing import Any

from flask import Blueprint, request
from pydantic_core import from_json
from werkzeug.exceptions import Forbidden

from api import tokens
from api.relay import Subscription
from api.services import services
from api.tokens import Caller
from api.websocket import HardenedSock, WebSocket
from shared import events, feed, timestamps, users
from shared.errors import InvalidTokenError

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
        caller = _admit(username)
        since = _since()
    except RefusedError as refused:
        _refuse(socket, refused.code, str(refused))
        return
    with services().relay.subscribe(caller.id) as news:
        _Follower(socket, news, caller).run(since)


@sock.route("/ws/prompts/", bp=bp)
def no_username(socket: WebSocket) -> None:
    _refuse(socket, NO_USERNAME, _NO_USERNAME_MESSAGE)


@sock.route("/ws/", bp=bp)
def no_room(socket: WebSocket) -> None:
    _refuse(socket, NO_SUCH_PATH, f"There is no WebSocket at {request.path}.")


@sock.route("/ws/<path:rest>", bp=bp)
def no_such_path(socket: WebSocket, rest: str) -> None:
    _refuse(socket, NO_SUCH_PATH, f"There is no WebSocket at /ws/{rest}.")


class _Follower:
    """Sends a socket what happens in its room, until one of them ends."""

    def __init__(self, socket: WebSocket, news: Subscription, caller: Caller) -> None:
        self._socket = socket
        self._news = news
        self._caller = caller
        self._cursor = 0

    def run(self, since: int | None) -> None:
        self._greet(since)
        self._socket.listen(self._answer, self._news.close)
        while (remaining := self._caller.expires_at - time.time()) > 0:
            announcement = self._news.get(remaining)
            if announcement is None:
                break
            if announcement == events.LOGIN_ENDED:
                if not self._is_logged_in():
                    _refuse(self._socket, UNAUTHENTICATED, "The token has been revoked.")
                    return
            elif announcement.seq is None:
                self._socket.send(announcement.message or "")
            elif announcement.seq == self._cursor + 1 and announcement.prompt_id is not None:
                self._cursor += 1
                if announcement.message is not None:
                    self._socket.send(announcement.message)
            elif announcement.seq > self._cursor:
                self._catch_up()
        self._take_leave()

    def _greet(self, since: int | None) -> None:
        """Says hello with the newest number, and tells what was missed since the given one."""
        user_id = self._caller.id
        with services().sessions() as session:
            newest = feed.newest(session, [user_id])[user_id]
            kept = since is None or feed.keeps(session, user_id, since)
        message = f"Connected to WebSocket room '{self._caller.username}'."
        self._send({"type": "connected", "message": message, "seq": newest})
        self._cursor = newest if since is None or not kept else since
        if not kept:
            self._send({"type": "reset", "seq": newest})
        elif self._cursor < newest:
            self._catch_up()

    def _catch_up(self) -> None:
        """Sends what the feed has after the cursor."""
        more = True
        while more:
            with services().sessions() as session:
                replay = feed.replay(session, self._caller.id, self._cursor)
            for ending in replay.endings:
                self._send(events.ending_event(ending))
            self._cursor, more = replay.reached, replay.more

    def _is_logged_in(self) -> bool:
        family = self._caller.family
        with services().sessions() as session:
            return family is None or users.of_family(session, family) is not None

    def _take_leave(self) -> None:
        if self._news.going_down:
            self._socket.close(GOING_DOWN, "The server is going down; connect again with since.")
        elif self._news.overflowed:
            self._socket.close(TRY_AGAIN_LATER, "You fell behind; connect again with since.")
        elif not self._news.closed:  # nobody has left, so time is up
            _refuse(self._socket, UNAUTHENTICATED, "The token has expired.")

    def _answer(self, data: str | bytes) -> None:
        """Answers a message from the client. It changes nothing on the server."""
        if not data.strip():
            return
        try:
            answer = _answer_to(from_json(data, allow_inf_nan=False))
            text = events.to_json(answer | {"timestamp": timestamps.now()})
        except ValueError:
            text = events.to_json(_error("Invalid JSON format") | {"timestamp": timestamps.now()})
        self._socket.send(text)

    def _send(self, message: dict[str, Any]) -> None:
        self._socket.send(events.to_json(message))


def _answer_to(message: Any) -> dict[str, Any]:
    kind = message.get("type") if isinstance(message, dict) else None
    if kind is None:
        return _error("Missing 'type' field")
    return {"type": "pong"} if kind == "ping" else {"type": "echo", "data": message}


def _error(message: str) -> dict[str, Any]:
    return {"type": "error", "message": message}


def _admit(username: str) -> Caller:
    """Whose room it is, if whoever connects may join it. Raises RefusedError if not."""
    with services().sessions() as session:
        if services().settings.ws_room_auth == "open":
            user = users.find(session, username) if "\0" not in username else None
            if user is None:
                raise RefusedError(NOT_YOURS, f"There is no room '{username}'.")
            return Caller(user.id, user.username, family=None, expires_at=float("inf"))
        try:
            caller = tokens.caller_of(session, _token())
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
    socket.send(events.to_json({"error": message}))
    socket.close(code, message[:120])
