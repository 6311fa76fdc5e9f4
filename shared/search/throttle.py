"""Limits how often a store asks workers for the same maintenance."""

import time
from collections.abc import Callable

#: After this time a request is repeated if its work is still to be done: the message may have been lost.
MIN_INTERVAL_SECONDS = 30.0


class Throttle:
    """Calls a function for a user at most once every MIN_INTERVAL_SECONDS.

    Args:
        request: Asks a worker for the work; must not fail. It may be called again before the work is done.
    """

    def __init__(self, request: Callable[[int], object]) -> None:
        self._request = request
        self._called_at: dict[int, float] = {}

    def __call__(self, user_id: int) -> bool:
        """Make the request unless it was made recently. Returns whether it did."""
        now = time.monotonic()
        if now < self._called_at.get(user_id, float("-inf")) + MIN_INTERVAL_SECONDS:
            return False
        recent = {user: at for user, at in self._called_at.items() if now < at + MIN_INTERVAL_SECONDS}
        self._called_at = recent | {user_id: now}
        self._request(user_id)
        return True
