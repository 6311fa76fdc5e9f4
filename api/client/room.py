"""A user's room: its events, each once, across reconnects."""

import json
from collections.abc import Iterator
from typing import cast
from urllib.parse import quote

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from .errors import NotLoggedInError, ProblemError, RefusedError, UnreachableError
from .resources import Event
from .retries import FOREVER, Patience, Pause, Retries
from .session import Session
from .token_store import Login

_UNAUTHENTICATED = 4401
#: Close codes from here on are the application's: the room is not to be joined again.
_REFUSALS = 4000
_JOIN_SECONDS, _CLOSE_SECONDS = 10.0, 1.0
_MAX_MESSAGE_BYTES = 64 * 2**20


class Room:
    """The room of whoever is logged in."""

    def __init__(self, url: str, session: Session, patience: Patience, pause: Pause) -> None:
        self._url = url
        self._session = session
        self._patience = patience
        self._pause = pause

    def events(self, since: int | None) -> Iterator[Event]:
        """The room's events, without an end. Once it was joined, it is joined again, however long that takes.

        Args:
            since: the number of the last event that is known already; None to begin with the next.

        Raises:
            NotLoggedInError, RefusedError, ProblemError: it must not be joined.
            UnreachableError: it cannot be.
        """
        cursor, login, is_renewed = _Cursor(since), self._session.login, False
        retries = Retries(self._patience, self._pause)
        while True:
            try:
                for message in self._visit(login, cursor):
                    if message["type"] == "connected":
                        retries, is_renewed = Retries(FOREVER, self._pause), False
                    else:
                        yield message
            except NotLoggedInError:
                if is_renewed:
                    raise
                login, is_renewed = self._session.renew(login), True
            except (ProblemError, UnreachableError) as failure:
                if isinstance(failure, ProblemError) and not failure.may_pass:
                    raise
                retries.wait(failure)

    def _visit(self, login: Login, cursor: "_Cursor") -> Iterator[Event]:
        """`connected`, and the events until the socket closes, which raises."""
        refusal = "The server has closed the socket."
        try:
            with self._join(login, cursor.seq) as socket:
                while True:
                    message = json.loads(socket.recv())
                    if "type" not in message:
                        refusal = str(message.get("error"))
                    elif "seq" in message and cursor.passes(message):  # deltas have none
                        yield cast(Event, message)
        except ConnectionClosed as closed:
            code = 1006 if closed.rcvd is None else closed.rcvd.code
            if code == _UNAUTHENTICATED:
                raise NotLoggedInError(refusal) from closed
            if code >= _REFUSALS:
                raise RefusedError(refusal, code) from closed
            raise UnreachableError(f"The connection to {self._url} has ended ({code}).") from closed
        except InvalidStatus as refused:
            response = refused.response
            raise ProblemError(response.status_code, response.headers, bytes(response.body or b"")) from refused
        except (OSError, EOFError, WebSocketException) as error:
            raise UnreachableError(f"{self._url} cannot be reached ({str(error) or type(error).__name__}).") from error

    def _join(self, login: Login, since: int | None) -> ClientConnection:
        path = f"/ws/prompts/{quote(login.username, safe='')}/"
        return connect(
            self._url.replace("http", "ws", 1) + path + ("" if since is None else f"?since={since}"),
            additional_headers={"Authorization": f"Bearer {login.access}"},
            open_timeout=_JOIN_SECONDS,
            close_timeout=_CLOSE_SECONDS,
            max_size=_MAX_MESSAGE_BYTES,
        )


class _Cursor:
    """How far the events are known: `seq`, None before the room has said how far they are."""

    def __init__(self, seq: int | None) -> None:
        self.seq = seq

    def passes(self, message: Event) -> bool:
        """Whether this message is new."""
        seq = message["seq"]
        if message["type"] == "connected":
            self.seq = seq if self.seq is None else self.seq
            return True
        if message["type"] != "reset" and self.seq is not None and seq <= self.seq:
            return False
        self.seq = seq
        return True
