"""The events of a user's WebSocket room, each once, across reconnects."""

import json
from collections.abc import Iterator
from typing import cast
from urllib.parse import quote, urlencode

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from .errors import NotLoggedInError, ProblemError, RefusedError, UnreachableError
from .resources import Event
from .retries import UNLIMITED, Retries, RetryLimits, Sleep
from .session import Session

_UNAUTHENTICATED = 4401
#: The user has as many sockets as allowed. Some of them may have ended, which the server has not noticed yet.
_TOO_MANY_SOCKETS = 4429
#: Other close codes from here on are the application's: reconnecting would not help.
_FIRST_APPLICATION_CODE = 4000
_OPEN_SECONDS, _CLOSE_SECONDS = 10.0, 1.0
_MAX_MESSAGE_BYTES = 64 * 2**20


class EventSocket:
    """The WebSocket of the user's room."""

    def __init__(self, url: str, session: Session, limits: RetryLimits, sleep: Sleep) -> None:
        self._url = url
        self._session = session
        self._limits = limits
        self._sleep = sleep

    def events(self, since: int | None, *, everything: bool = False) -> Iterator[Event]:
        """Yield the room's events without end. After the first connection it reconnects without a limit.

        Args:
            since: the `seq` of the last known event; None to start with the next one.
            everything: also prompts that were submitted without `websocket`, and deletions.

        Raises:
            NotLoggedInError, RefusedError, ProblemError: the server refuses the connection.
            UnreachableError: the first connection failed.
        """
        cursor, username, token = _Cursor(since), self._session.username, self._session.token
        retries = Retries(self._limits, self._sleep)
        refused: str | None = None  # the token that the server has just refused
        while True:
            try:
                if refused is not None:
                    token = self._session.renew(refused)
                for message in self._messages(username, token, cursor, everything):
                    if message["type"] == "connected":
                        retries, refused = Retries(UNLIMITED, self._sleep), None
                    else:
                        yield message
            except RefusedError as error:
                if error.code != _UNAUTHENTICATED:
                    raise
                if refused is not None or not self._session.is_renewable:
                    raise NotLoggedInError(str(error)) from error
                refused = token
            except (ProblemError, UnreachableError) as failure:
                if isinstance(failure, ProblemError) and not failure.is_temporary:
                    raise
                refused = None  # the token that replaces it may expire, too, before the server can be reached
                retries.wait(failure)

    def _messages(self, username: str, token: str, cursor: "_Cursor", everything: bool) -> Iterator[Event]:
        """Yield `connected` and the new events of one connection. Raises when the connection ends."""
        refusal = "The server closed the socket."
        try:
            with self._connect(username, token, cursor.seq, everything) as socket:
                while True:
                    message = json.loads(socket.recv())
                    if "type" not in message:
                        refusal = str(message.get("error"))
                    elif "seq" in message and cursor.advance(message):  # deltas have no seq
                        yield cast(Event, message)
        except ConnectionClosed as closed:
            code = 1006 if closed.rcvd is None else closed.rcvd.code
            if code == _TOO_MANY_SOCKETS:
                raise UnreachableError(refusal) from closed
            if code >= _FIRST_APPLICATION_CODE:
                raise RefusedError(refusal, code) from closed
            raise UnreachableError(f"The connection to {self._url} ended ({code}).") from closed
        except InvalidStatus as refused:
            response = refused.response
            raise ProblemError(response.status_code, response.headers, bytes(response.body or b"")) from refused
        except (OSError, EOFError, WebSocketException) as error:
            raise UnreachableError(f"{self._url} cannot be reached ({str(error) or type(error).__name__}).") from error

    def _connect(self, username: str, token: str, since: int | None, everything: bool) -> ClientConnection:
        path = f"/ws/prompts/{quote(username, safe='')}/"
        query = urlencode(({} if since is None else {"since": since}) | ({"all": "true"} if everything else {}))
        return connect(
            self._url.replace("http", "ws", 1) + path + (f"?{query}" if query else ""),
            additional_headers={"Authorization": f"Bearer {token}"},
            open_timeout=_OPEN_SECONDS,
            close_timeout=_CLOSE_SECONDS,
            max_size=_MAX_MESSAGE_BYTES,
        )


class _Cursor:
    """The `seq` of the last known event; None until the server has sent one."""

    def __init__(self, seq: int | None) -> None:
        self.seq = seq

    def advance(self, message: Event) -> bool:
        """Advance to this message. Returns whether the message is new."""
        seq = message["seq"]
        if message["type"] == "connected":
            self.seq = seq if self.seq is None else self.seq
            return True
        if message["type"] != "reset" and self.seq is not None and seq <= self.seq:
            return False
        self.seq = seq
        return True
