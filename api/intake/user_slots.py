"""Limits on what one user may use at the same time: sockets, waiting requests and streams, searches.

Each API process counts its own, in memory. Counting in Redis would add a round trip to each search, and a process that
dies would leave its counts behind. So with N API processes a user may use up to N times the limit.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from flask import Response

from shared.errors import UserLimitError
from shared.settings import Settings


class UserSlots:
    """Counts the slots that each user holds, at most `limit`.

    Args:
        setting: The name of the limit.
        message: The error when a user holds all of them; `{limit}` is replaced.
    """

    def __init__(self, limit: int, setting: str, message: str) -> None:
        self._limit = limit
        self._error = partial(UserLimitError, f"{message.format(limit=limit)} ({setting})", limit=setting)
        self._held: dict[int, int] = {}
        self._lock = threading.Lock()

    def acquire(self, user_id: int) -> None:
        """Acquire a slot, until `release`.

        Raises:
            UserLimitError: the user holds all slots.
        """
        with self._lock:
            held = self._held.get(user_id, 0)
            if held >= self._limit:
                raise self._error()
            self._held[user_id] = held + 1

    def release(self, user_id: int) -> None:
        """Release an acquired slot."""
        with self._lock:
            held = self._held.pop(user_id) - 1
            if held:
                self._held[user_id] = held

    @contextmanager
    def hold(self, user_id: int) -> Iterator[None]:
        """Hold a slot within the block.

        Raises:
            UserLimitError: the user holds all slots.
        """
        self.acquire(user_id)
        try:
            yield
        finally:
            self.release(user_id)

    def hold_while_sent(self, user_id: int, respond: Callable[[], Response]) -> Response:
        """Hold a slot while a response is made, and until it is sent.

        Raises:
            UserLimitError: the user holds all slots.
        """
        self.acquire(user_id)
        release = partial(self.release, user_id)
        try:
            response = respond()
        except BaseException:
            release()
            raise
        response.call_on_close(release)
        return response


class UserLimits:
    """The limits of one user in this process."""

    def __init__(self, settings: Settings) -> None:
        self.sockets = UserSlots(
            settings.user_socket_limit,
            "USER_SOCKET_LIMIT",
            "A user may have {limit} sockets at a time: close one, and connect again.",
        )
        self.waits = UserSlots(
            settings.user_wait_limit,
            "USER_WAIT_LIMIT",
            "A user may have {limit} streams and waiting requests at a time: end one, or poll without `Prefer: wait`.",
        )
        self.searches = UserSlots(
            settings.user_search_limit,
            "USER_SEARCH_LIMIT",
            "A user may have {limit} searches at a time: repeat this one when another has ended.",
        )
