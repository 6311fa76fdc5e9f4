"""Asking workers for what a store needs done, and not for the same again and again."""

import time
from collections.abc import Callable

#: A request is repeated after so many seconds, if what was asked for is still to be done: it may have been lost.
AGAIN_SECONDS = 30.0


class Throttle:
    """Asks for something to be done for a user, at most every AGAIN_SECONDS.

    Args:
        ask: Has a worker do it; must not fail. It may be called again before that is done.
    """

    def __init__(self, ask: Callable[[int], object]) -> None:
        self._ask = ask
        self._asked_at: dict[int, float] = {}

    def __call__(self, user_id: int) -> bool:
        """Asks, if it is time. Returns whether it did."""
        now = time.monotonic()
        if now < self._asked_at.get(user_id, float("-inf")) + AGAIN_SECONDS:
            return False
        self._asked_at = {user: at for user, at in self._asked_at.items() if now < at + AGAIN_SECONDS} | {user_id: now}
        self._ask(user_id)
        return True
