"""The WebSocket `/ws/prompts/<username>/`: who may join a user's room."""

from collections.abc import Callable

from flask import Blueprint, request
from werkzeug.exceptions import Forbidden

from api.auth.principal import Principal
from api.auth.tokens import Authenticator, bearer_token
from api.http.public_address import PublicAddress
from api.http.requests import route_template
from api.realtime.fair_semaphore import FairSemaphore
from api.realtime.handshake import Sock
from api.realtime.room_session import UNAUTHENTICATED, SocketSession, refuse
from api.realtime.websocket import WebSocket
from shared.accounts import names, users
from shared.db.engine import Sessions
from shared.db.models import Scope
from shared.errors import InsufficientScopeError, InvalidTokenError, UserLimitError
from shared.settings import Settings
from shared.telemetry import metrics

NO_USERNAME, NO_SUCH_PATH, BAD_PARAMETER, NOT_YOURS, TOO_MANY_SOCKETS = 4000, 4001, 4400, 4403, 4429

_NO_USERNAME_MESSAGE = "Missing 'username' parameter. Use ws://host/ws/prompts/<username>/"


class RefusedError(Exception):
    """The caller may not join. The socket gets the message, and is closed with the code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class RoomRoutes:
    """The WebSocket's views.

    Args:
        make_session: Makes the session of a principal's socket.
    """

    def __init__(
        self,
        settings: Settings,
        address: PublicAddress,
        sessions: Sessions,
        authenticator: Authenticator,
        db_slots: FairSemaphore,
        make_session: Callable[[WebSocket, Principal], SocketSession],
    ) -> None:
        self._settings = settings
        self._address = address
        self._sessions = sessions
        self._authenticator = authenticator
        self._db_slots = db_slots
        self._make_session = make_session

    def blueprint(self) -> Blueprint:
        bp, sock = Blueprint("rooms", __name__), Sock(subprotocols=["bearer"])
        bp.before_request(self._check_origin)
        sock.route("/ws/prompts/<username>/", bp)(self.room)
        sock.route("/ws/prompts/", bp)(no_username)
        sock.route("/ws/", bp)(no_path)
        sock.route("/ws/<path:rest>", bp)(no_such_path)
        return bp

    def room(self, socket: WebSocket, username: str) -> None:
        """Join a user's room."""
        try:
            with self._db_slots:
                session = self._make_session(socket, self._admit(username))
                newest, is_kept = session.enter(_since(), everything=_everything())
        except RefusedError as error:
            refuse(socket, error.code, str(error))
            return
        except UserLimitError as error:
            metrics.rate_limited.labels(route_template(), error.limit).inc()
            refuse(socket, TOO_MANY_SOCKETS, str(error))
            return
        session.greet(newest, is_kept)

    def _check_origin(self) -> None:
        """Refuse browsers' pages of other origins. PUBLIC_URL's and ALLOWED_ORIGINS may open sockets."""
        origin = request.headers.get("Origin")
        if origin is not None and not self._address.allows_origin(origin, request.host):
            raise Forbidden("This origin may not open sockets here; set PUBLIC_URL, or add it to ALLOWED_ORIGINS.")

    def _admit(self, username: str) -> Principal:
        """Return the principal of the room, if the caller may join it.

        Raises:
            RefusedError: the caller may not.
        """
        if self._settings.ws_room_auth == "open":
            return self._find_user(username)
        try:
            principal = self._authenticator.authenticate_token(_token())
        except InvalidTokenError as error:
            raise RefusedError(UNAUTHENTICATED, str(error)) from error
        if not self._is_name_of(principal, username):
            raise RefusedError(NOT_YOURS, "This room is another user's.")
        if not principal.has_scope(Scope.PROMPTS_READ):
            raise RefusedError(NOT_YOURS, str(InsufficientScopeError(Scope.PROMPTS_READ)))
        return principal

    def _is_name_of(self, principal: Principal, username: str) -> bool:
        """Whether this is the user's name, in any case."""
        if username == principal.username or names.fold(username) != names.fold(principal.username):
            return username == principal.username
        with self._sessions() as session:  # of two users who registered such names long ago, it may be the other one's
            user = users.find(session, username)
        return user is not None and user.id == principal.id

    def _find_user(self, username: str) -> Principal:
        with self._sessions() as session:
            user = users.find(session, username) if "\0" not in username else None
        if user is None:
            raise RefusedError(NOT_YOURS, f"There is no room '{username}'.")
        return Principal(user.id, user.username, family=None, expires_at=float("inf"))


def no_username(socket: WebSocket) -> None:
    refuse(socket, NO_USERNAME, _NO_USERNAME_MESSAGE)


def no_path(socket: WebSocket) -> None:
    refuse(socket, NO_SUCH_PATH, f"There is no WebSocket at {request.path}.")


def no_such_path(socket: WebSocket, rest: str) -> None:
    refuse(socket, NO_SUCH_PATH, f"There is no WebSocket at /ws/{rest}.")


def _token() -> str:
    """The token or API key in the Authorization header or, from a browser, in the subprotocols `bearer, <token>`."""
    header = request.headers.get("Authorization")
    offered = [part.strip() for part in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if header is None and len(offered) == 2 and offered[0] == "bearer":
        return offered[1]
    return bearer_token(header)


def _since() -> int | None:
    since = request.args.get("since")
    if since is None:
        return None
    if not (since.isascii() and since.isdigit() and len(since) < 19):
        raise RefusedError(BAD_PARAMETER, "'since' must be the seq of an event.")
    return int(since)


def _everything() -> bool:
    wanted = request.args.get("all", "false")
    if wanted not in ("true", "false"):
        raise RefusedError(BAD_PARAMETER, "'all' must be true or false.")
    return wanted == "true"
