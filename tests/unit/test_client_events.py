"""The room of the client: when it is joined again, and with which token."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.server import ServerConnection

from api.client.errors import NotLoggedInError, UnreachableError
from api.client.events import EventSocket
from api.client.retries import UNLIMITED, RetryLimits
from tests.support.room_server import room_server


@pytest.fixture
def pauses() -> list[float]:
    """The delays, in seconds, that the client asked for; none of them is slept."""
    return []


class ScriptedLogin:
    """A login whose renewals return these tokens, or raise these errors."""

    username, token, is_renewable = "alice", "token 1", True

    def __init__(self, *renewals: str | Exception) -> None:
        self.renewals = list(renewals)
        self.expired: list[str] = []

    def renew(self, expired: str) -> str:
        self.expired.append(expired)
        renewed = self.renewals.pop(0)
        if isinstance(renewed, Exception):
            raise renewed
        return renewed


@contextmanager
def closing_room(*codes: int) -> Iterator[tuple[str, list[str]]]:
    """A room that closes its sockets with these codes; 1012 after joining. The next one gets an event.

    Yields its URL, and the tokens that it has got.
    """
    left, tokens = list(codes), []

    def handle(socket: ServerConnection) -> None:
        tokens.append(socket.request.headers["Authorization"].removeprefix("Bearer "))
        code = left.pop(0) if left else None
        if code in (None, 1012):
            socket.send('{"type": "connected", "seq": 0}')
        else:
            socket.send('{"error": "You have 100 sockets."}')
        if code is None:
            socket.send('{"type": "prompt.completed", "seq": 1, "id": 7}')
            list(socket)  # until it is closed
        else:
            socket.close(code)

    with room_server(handle) as url:
        yield url, tokens


class TestListening:
    @pytest.mark.parametrize(
        ("codes", "renewals", "tokens"),
        [
            ([4401], ["token 2"], ["token 1", "token 2"]),
            # The login expires while the server restarts: no retry of the renewal itself lasts as long.
            ([1012, 4401, 4401], [UnreachableError("down"), "token 2"], ["token 1"] * 3 + ["token 2"]),
            # The server is unavailable until the next token has expired, too.
            ([4401, 1011, 4401], ["token 2", "token 3"], ["token 1", "token 2", "token 2", "token 3"]),
        ],
        ids=["expired", "expired while the server restarts", "expired twice"],
    )
    def test_a_room_is_joined_again_with_a_new_login(
        self, pauses: list[float], codes: list[int], renewals: list[Any], tokens: list[str]
    ) -> None:
        login: Any = ScriptedLogin(*renewals)
        with closing_room(*codes) as (url, used):
            socket = EventSocket(url, login, RetryLimits(60, 4), pauses.append)
            assert next(socket.events(0))["seq"] == 1
        assert (used, login.renewals) == (tokens, [])

    def test_a_login_that_is_refused_twice_has_ended(self, pauses: list[float]) -> None:
        login: Any = ScriptedLogin("token 2")
        with closing_room(4401, 4401) as (url, _), pytest.raises(NotLoggedInError):
            next(EventSocket(url, login, UNLIMITED, pauses.append).events(0))
        assert pauses == []

    def test_a_room_is_joined_again_when_a_place_in_it_is_free(self, pauses: list[float]) -> None:
        login: Any = ScriptedLogin()
        with closing_room(1012, 4429) as (url, _):
            assert next(EventSocket(url, login, RetryLimits(60, 0), pauses.append).events(0))["seq"] == 1
        with closing_room(4429, 4429) as (url, tokens), pytest.raises(UnreachableError, match="100 sockets"):
            next(EventSocket(url, login, RetryLimits(60, 1), pauses.append).events(0))
        assert len(tokens) == 2
